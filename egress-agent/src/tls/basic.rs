//! User names and passwords, as a Secret of type `kubernetes.io/basic-auth` has them.

use std::{io, path::PathBuf};

use data_encoding::BASE64;
use tokio::fs::read;

use super::CredentialStore;
use crate::source::{FileContents, Secrets};

/// The keys, which are the names of the files.
const KEYS: [&str; 2] = ["username", "password"];

/// The value of `Proxy-Authorization` (RFC 7617) by the credential of this name: `username` and `password` in its
/// directory, or in its Secret. Files are read each time, so that a change counts at once.
///
/// # Errors
/// They can't be read, or the user's name has a colon.
pub async fn basic_authorization(
    store: Option<&CredentialStore>,
    name: &str,
) -> io::Result<String> {
    let failed = |what: &dyn std::fmt::Display| {
        io::Error::other(format!("the credential {name} can't be used: {what}"))
    };
    let [user, password] = match store {
        None => return Err(failed(&"there is no --credentials-dir")),
        Some(CredentialStore::Directory(directory)) => {
            let part = async |file: &str| {
                let text = read(directory.join(name).join(file)).await;
                text.map_err(|error| failed(&format_args!("{file}: {error}")))
            };
            [part(KEYS[0]).await?, part(KEYS[1]).await?]
        }
        Some(CredentialStore::Secrets(secrets)) => {
            let [user, password] = of_secret(secrets, name);
            [user.map_err(|why| failed(&why))?, password.map_err(|why| failed(&why))?]
        }
    };
    let (user, password) = (without_end(user), without_end(password));
    if user.contains(&b':') {
        return Err(failed(&"a user's name has no colon"));
    }
    Ok(format!("Basic {}", BASE64.encode(&[&user[..], b":", &password].concat())))
}

/// What is wrong with a credential that is a Secret.
pub(super) fn fault(secrets: &Secrets, name: &str) -> Option<String> {
    let parts = of_secret(secrets, name);
    let wrong = parts.iter().find_map(|part| part.as_ref().err().cloned());
    let [user, _] = parts;
    let colon = || {
        let has = user.is_ok_and(|user| user.contains(&b':'));
        has.then(|| "username: a user's name has no colon".to_owned())
    };
    wrong.or_else(colon)
}

/// The values of a Secret, or why there is none.
fn of_secret(secrets: &Secrets, name: &str) -> [Result<Vec<u8>, String>; 2] {
    let paths: [PathBuf; 2] = KEYS.map(|key| secrets.directory().join(name).join(key));
    let read: FileContents = secrets.read(&paths);
    let value = |(key, path): (&str, &PathBuf)| match read.get(path) {
        Ok(value) => Ok(value.to_vec()),
        Err(why) => Err(format!("{key}: {why}")),
    };
    [value((KEYS[0], &paths[0])), value((KEYS[1], &paths[1]))]
}

/// An editor ends a line.
fn without_end(mut text: Vec<u8>) -> Vec<u8> {
    while text.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use tempfile::TempDir;

    use super::*;
    use crate::source::Secret;

    #[tokio::test]
    async fn name_and_password_are_those_of_the_files() {
        let dir = TempDir::new().unwrap();
        let own = dir.path().join("proxy");
        std::fs::create_dir(&own).unwrap();
        let store = CredentialStore::from(dir.path());
        let of = || basic_authorization(Some(&store), "proxy");
        assert!(of().await.unwrap_err().to_string().contains("username"));
        // The example of RFC 7617 §2.
        std::fs::write(own.join("username"), "Aladdin\n").unwrap();
        assert!(of().await.unwrap_err().to_string().contains("password"));
        std::fs::write(own.join("password"), "open sesame").unwrap();
        assert_eq!(of().await.unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        std::fs::write(own.join("username"), "a:b").unwrap();
        assert!(of().await.unwrap_err().to_string().contains("colon"));
        let none = basic_authorization(None, "proxy").await.unwrap_err();
        assert!(none.to_string().contains("--credentials-dir"));
    }

    #[tokio::test]
    async fn name_and_password_are_those_of_the_secret() {
        let secrets = Secrets::new("istio-system");
        let store = CredentialStore::Secrets(secrets.clone());
        let of = || basic_authorization(Some(&store), "shop.proxy");
        let wrong = async || of().await.unwrap_err().to_string();
        assert!(wrong().await.contains("has not given it yet"));
        secrets.want(BTreeSet::from(["shop.proxy".to_owned()]), &BTreeMap::new());
        secrets.take("shop.proxy", Secret::Absent);
        assert!(wrong().await.contains("username"));
        assert!(fault(&secrets, "shop.proxy").unwrap().contains("username"));
        let given = |user: &str| {
            let pair = [("username", user), ("password", "open sesame")];
            let data = pair.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()));
            secrets.take("shop.proxy", Secret::Present(data.into()));
        };
        given("Aladdin");
        assert_eq!(of().await.unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(fault(&secrets, "shop.proxy"), None);
        given("a:b");
        assert!(wrong().await.contains("colon"));
        assert!(fault(&secrets, "shop.proxy").unwrap().contains("colon"));
        // Another one is not given for it.
        assert!(basic_authorization(Some(&store), "other.proxy").await.is_err());
    }
}
