//! Taking maps out of the object, and naming them in errors.

use aya::{
    Ebpf,
    maps::{Map, MapError},
};

use super::{Error, load};

/// Takes a map of the type that the ABI says.
pub(super) fn typed<T: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, Error> {
    T::try_from(load::map(ebpf, name)?).map_err(|error| Error::Map { map: name, error })
}

/// An error with the map's name.
pub(super) fn named<T>(map: &'static str, result: Result<T, MapError>) -> Result<T, Error> {
    result.map_err(|error| Error::Map { map, error })
}

/// Removing what isn't there is as good as removing it.
pub(super) fn absent(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        result => result,
    }
}
