//! Secrets that credentials are made of, as an API server gives them. They are kept in memory alone, and no
//! message shows what is in them.
//!
//! Whoever needs credentials says their names; whoever asks the API server says what it has of these.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::watch;

use super::files::{FileContents, Unreadable};

/// Names that are watched: more are a mistake, and each is a watch of its own.
const MOST: usize = 1024;

/// What the paths that stand for Secrets begin with. A file that a configuration names so is not read.
const PREFIX: &str = "Secret ";

/// The Secrets of one namespace that are wanted by name.
#[derive(Clone, Debug)]
pub struct Secrets(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    namespace: String,
    wanted: watch::Sender<BTreeSet<String>>,
    known: watch::Sender<Arc<KnownSecrets>>,
}

/// What is known of those that are wanted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct KnownSecrets(BTreeMap<String, Secret>);

/// What is known of a Secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// Its keys with their values.
    Present(BTreeMap<String, Vec<u8>>),
    /// There is none of this name.
    Absent,
    /// It is not known, and why.
    Unknown(String),
}

impl fmt::Debug for Secret {
    /// Without the values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present(data) => f.debug_set().entries(data.keys()).finish(),
            Self::Absent => f.write_str("Absent"),
            Self::Unknown(why) => f.debug_tuple("Unknown").field(why).finish(),
        }
    }
}

impl PartialEq for Secrets {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Secrets {}

impl Secrets {
    /// Those of a namespace. None is wanted yet.
    #[must_use]
    pub fn new(namespace: &str) -> Self {
        Self(Arc::new(Shared {
            namespace: namespace.into(),
            wanted: watch::Sender::default(),
            known: watch::Sender::default(),
        }))
    }

    /// Their namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// What stands for the directory of all of them, as messages show it. It is never opened.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        format!("{PREFIX}{}", self.0.namespace).into()
    }

    /// Whether a path stands for a key of a Secret.
    #[must_use]
    pub fn has(path: &Path) -> bool {
        path.as_os_str().as_encoded_bytes().starts_with(PREFIX.as_bytes())
    }

    /// Whether this one is known, and so in use.
    #[must_use]
    pub fn is_read(&self, name: &str) -> bool {
        matches!(self.0.known.borrow().0.get(name), Some(Secret::Present(_)))
    }

    /// Says which ones are wanted from now on, and why nobody asks for the names of `beyond`. What was known of
    /// others is forgotten.
    pub fn want(&self, mut names: BTreeSet<String>, beyond: &BTreeMap<String, String>) {
        let all_beyond = beyond.keys();
        if names.len() > MOST {
            tracing::error!(
                "{} Secrets are wanted, and {MOST} are read; credentials that need others refuse \
                 their traffic",
                names.len()
            );
            // What is read and in use does not go for what somebody asks for now.
            let known = Arc::clone(&self.0.known.borrow());
            let is_read = |name: &String| matches!(known.0.get(name), Some(Secret::Present(_)));
            let (first, rest): (Vec<_>, Vec<_>) = names.into_iter().partition(is_read);
            names = first.into_iter().chain(rest).take(MOST).collect();
        }
        self.0.wanted.send_if_modified(|wanted| {
            let differs = *wanted != names;
            wanted.clone_from(&names);
            differs
        });
        // Nobody puts in from now on what is not wanted.
        let beyond = |name: &str| {
            let why = beyond.get(name).filter(|_| !names.contains(name));
            why.map(|why| Secret::Unknown(why.clone()))
        };
        self.0.known.send_if_modified(|known| {
            let mut next = KnownSecrets::clone(known);
            next.0.retain(|name, _| names.contains(name));
            next.0.extend(all_beyond.filter_map(|name| Some((name.clone(), beyond(name)?))));
            let changed = **known != next;
            if changed {
                *known = Arc::new(next);
            }
            changed
        });
    }

    /// Which ones are wanted.
    pub fn wanted(&self) -> watch::Receiver<BTreeSet<String>> {
        self.0.wanted.subscribe()
    }

    /// Takes what the API server says of one. That it cannot be read now changes nothing that is known.
    pub fn take(&self, name: &str, secret: Secret) {
        if !self.0.wanted.borrow().contains(name) {
            return;
        }
        self.0.known.send_if_modified(|known| {
            let old = known.0.get(name);
            let keeps = matches!(secret, Secret::Unknown(_))
                && old.is_some_and(|old| !matches!(old, Secret::Unknown(_)));
            if keeps || old == Some(&secret) {
                return false;
            }
            Arc::make_mut(known).0.insert(name.into(), secret);
            true
        });
    }

    /// Waits until something is known of each that is wanted, be it that it cannot be read.
    pub async fn settled(&self) {
        let wanted = self.0.wanted.borrow().clone();
        let mut known = self.0.known.subscribe();
        let all = |known: &Arc<KnownSecrets>| wanted.iter().all(|name| known.0.contains_key(name));
        // The sender is this very value's.
        drop(known.wait_for(all).await.map(drop));
    }

    /// Waits until what is known has changed since the last look.
    #[must_use]
    pub fn changes(&self) -> SecretChanges {
        SecretChanges(self.0.known.subscribe())
    }

    /// The keys as files: `<directory>/<name>/<key>`, and one that says why for each of `paths` whose Secret is
    /// not known.
    pub fn read<'a>(&self, paths: impl IntoIterator<Item = &'a PathBuf>) -> FileContents {
        let known = Arc::clone(&self.0.known.borrow());
        let directory = self.directory();
        let paths = paths.into_iter().filter(|path| path.starts_with(&directory));
        paths.map(|path| (path.clone(), known.read(&directory, path))).collect()
    }
}

impl KnownSecrets {
    fn read(&self, directory: &Path, path: &Path) -> Result<Vec<u8>, Unreadable> {
        let mut parts = path.strip_prefix(directory).unwrap_or(path).iter();
        let part = parts.next().and_then(|name| name.to_str()).unwrap_or_default();
        let key = parts.next().and_then(|key| key.to_str()).unwrap_or_default();
        match self.0.get(part) {
            Some(Secret::Present(data)) => data.get(key).cloned().ok_or(Unreadable::Absent),
            Some(Secret::Absent) => Err(Unreadable::Absent),
            Some(Secret::Unknown(why)) => Err(Unreadable::Other(why.clone())),
            None => Err(Unreadable::Other("the API server has not given it yet".into())),
        }
    }
}

/// Tells of changes.
#[derive(Debug)]
pub struct SecretChanges(watch::Receiver<Arc<KnownSecrets>>);

impl SecretChanges {
    /// The next one.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn secret(value: &str) -> Secret {
        Secret::Present([("tls.crt".to_owned(), value.as_bytes().to_vec())].into())
    }

    fn names(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn read(secrets: &Secrets, name: &str, key: &str) -> Result<Vec<u8>, Unreadable> {
        let path = secrets.directory().join(name).join(key);
        secrets.read([&path]).get(&path).map(<[u8]>::to_vec)
    }

    #[test]
    fn only_what_is_wanted_is_known() {
        let secrets = Secrets::new("istio-system");
        secrets.take("web", secret("1"));
        let unasked = read(&secrets, "web", "tls.crt").unwrap_err();
        assert!(matches!(unasked, Unreadable::Other(_)), "{unasked}");
        secrets.want(names(&["web"]), &BTreeMap::new());
        secrets.take("web", secret("1"));
        secrets.take("other", secret("2"));
        assert_eq!(read(&secrets, "web", "tls.crt"), Ok(b"1".to_vec()));
        assert_eq!(read(&secrets, "web", "tls.key"), Err(Unreadable::Absent));
        assert!(read(&secrets, "other", "tls.crt").is_err());
        // A path of the file system is none of a Secret.
        let path = PathBuf::from("/etc/egress/web/tls.crt");
        assert_eq!(secrets.read([&path]), FileContents::default());
        secrets.want(names(&[]), &BTreeMap::new());
        secrets.want(names(&["web"]), &BTreeMap::new());
        assert!(read(&secrets, "web", "tls.crt").is_err(), "it was forgotten");
    }

    #[test]
    fn a_server_that_fails_changes_nothing_that_is_known() {
        let secrets = Secrets::new("istio-system");
        secrets.want(names(&["web"]), &BTreeMap::new());
        let failed = || Secret::Unknown("forbidden".into());
        secrets.take("web", failed());
        let why = read(&secrets, "web", "tls.crt").unwrap_err().to_string();
        assert!(why.contains("forbidden"), "{why}");
        secrets.take("web", secret("1"));
        secrets.take("web", failed());
        assert_eq!(read(&secrets, "web", "tls.crt"), Ok(b"1".to_vec()));
        secrets.take("web", Secret::Absent);
        secrets.take("web", failed());
        assert_eq!(read(&secrets, "web", "tls.crt"), Err(Unreadable::Absent));
    }

    #[tokio::test]
    async fn each_that_is_wanted_is_waited_for_and_changes_are_told_once() {
        let secrets = Secrets::new("istio-system");
        secrets.want(names(&["a", "b"]), &BTreeMap::new());
        let mut changes = secrets.changes();
        secrets.take("a", secret("1"));
        let now = Duration::from_millis(1);
        assert!(timeout(now, secrets.settled()).await.is_err());
        secrets.take("b", Secret::Absent);
        secrets.settled().await;
        changes.next().await;
        secrets.take("a", secret("1"));
        assert!(timeout(now, changes.next()).await.is_err(), "nothing is different");
    }

    #[test]
    fn what_is_in_them_is_not_shown() {
        let secrets = Secrets::new("istio-system");
        secrets.want(names(&["web"]), &BTreeMap::new());
        secrets.take("web", secret("12321"));
        let path = secrets.directory().join("web/tls.crt");
        let shown = format!("{secrets:?} {:?} {:?}", secret("12321"), secrets.read([&path]));
        assert!(shown.contains("tls.crt"), "{shown}");
        assert!(!shown.contains("12321") && !shown.contains("49, 50"), "{shown}");
    }

    #[test]
    fn there_is_a_bound() {
        let secrets = Secrets::new("istio-system");
        let names = (0..MOST + 10).map(|number| number.to_string()).collect();
        secrets.want(names, &BTreeMap::new());
        assert_eq!(secrets.wanted().borrow().len(), MOST);
    }

    #[test]
    fn what_nobody_asks_for_says_why() {
        let secrets = Secrets::new("istio-system");
        let beyond = BTreeMap::from([("many".to_owned(), "too many names".to_owned())]);
        secrets.want(names(&["web"]), &beyond);
        let why = read(&secrets, "many", "tls.crt").unwrap_err().to_string();
        assert!(why.contains("too many names"), "{why}");
        secrets.take("many", secret("1"));
        assert!(read(&secrets, "many", "tls.crt").is_err() && !secrets.is_read("many"));
        secrets.want(names(&["web", "many"]), &BTreeMap::new());
        secrets.take("many", secret("1"));
        assert!(secrets.is_read("many"));
    }
}
