//! User names and passwords, as a Secret of type `kubernetes.io/basic-auth` has them.

use std::{io, path::Path};

use data_encoding::BASE64;
use tokio::fs::read;

/// The value of `Proxy-Authorization` (RFC 7617) by the credential of this name: `username` and `password` in its
/// directory. Files are read each time, so that a change counts at once.
///
/// # Errors
/// They can't be read, or the user's name has a colon.
pub async fn basic_authorization(directory: Option<&Path>, name: &str) -> io::Result<String> {
    let failed = |what: &dyn std::fmt::Display| {
        io::Error::other(format!("the credential {name} can't be used: {what}"))
    };
    let directory = directory.ok_or_else(|| failed(&"there is no --credentials-dir"))?.join(name);
    let part = async |file: &str| {
        let text = read(directory.join(file)).await;
        let mut text = text.map_err(|error| failed(&format_args!("{file}: {error}")))?;
        while text.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            text.pop();
        }
        Ok::<_, io::Error>(text)
    };
    let (user, password) = (part("username").await?, part("password").await?);
    if user.contains(&b':') {
        return Err(failed(&"a user's name has no colon"));
    }
    Ok(format!("Basic {}", BASE64.encode(&[&user[..], b":", &password].concat())))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn name_and_password_are_those_of_the_files() {
        let dir = TempDir::new().unwrap();
        let own = dir.path().join("proxy");
        std::fs::create_dir(&own).unwrap();
        let of = || basic_authorization(Some(dir.path()), "proxy");
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
}
