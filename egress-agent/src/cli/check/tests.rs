use std::fs;

use tempfile::TempDir;

use super::{
    super::testing::{documented, golden},
    *,
};

const ENTRY: &str = "\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata:
  name: cnn
spec:
  hosts: [edition.cnn.com]
  ports:
  - {number: 80, name: http, protocol: HTTP}
  resolution: DNS
";

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = TempDir::new().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

fn args(paths: &[&Path], mesh: Option<&Path>, output: Output) -> CheckArgs {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    CheckArgs { paths, mesh: mesh.map(Into::into), output }
}

/// Exit code, standard output, standard error.
fn ran(args: &CheckArgs, colours: bool) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let screen = Screen { colours, width: width(false) };
    let code = check(args, screen, &mut out, &mut err).unwrap();
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn a_clean_configuration_is_0() {
    let dir = directory(&[("a.yaml", ENTRY), ("mesh.yaml", "direct: registry\n")]);
    let (code, out, err) = ran(&args(&[dir.path()], None, Output::Text), false);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let one = dir.path().join("a.yaml");
    assert_eq!(ran(&args(&[&one], None, Output::Text), false).0, 0);
}

#[test]
fn warnings_are_allowed() {
    let dir = directory(&[(
        "a.yaml",
        &ENTRY.replace("  resolution", "  resolutoin: NONE\n  resolution"),
    )]);
    let (code, out, _) = ran(&args(&[dir.path()], None, Output::Text), false);
    assert_eq!(code, 0);
    assert!(out.contains("a.yaml:9: warning: unknown field \"resolutoin\""), "{out}");
    assert!(out.contains("Did you mean \"resolution\"?"), "{out}");
    assert!(out.ends_with("no errors, 1 warning in 1 file\n"), "{out}");
    let (code, out, _) = ran(&args(&[dir.path()], None, Output::Json), false);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    documented("check -o json", &json);
    let counts = ["errors", "refusals", "warnings"].map(|count| json[count].as_u64().unwrap());
    assert_eq!((code, counts), (0, [0, 0, 1]));
    assert_eq!(json["problems"][0]["severity"], "warning");
}

#[test]
fn errors_are_1_all_of_them_at_once() {
    let broken = "a: [\n---\n";
    let wrong = ENTRY.replace("number: 80", "number: eighty").replace("DNS", "DSN");
    let dir = directory(&[
        ("a.yaml", &format!("{broken}{wrong}")),
        ("sub/b.yaml", "kind: ServiceEntri\napiVersion: networking.istio.io/v1\n"),
    ]);
    let (code, out, _) = ran(&args(&[dir.path()], None, Output::Text), false);
    assert_eq!(code, 1);
    for text in [
        "isn't valid YAML",
        "found the text \"eighty\"",
        "found the text \"DSN\"",
        "spec.ports[0].number",
        "Did you mean ServiceEntry?",
        "4 errors, no warnings in 2 files",
    ] {
        assert!(out.contains(text), "{text}: {out}");
    }
    assert!(!out.contains('\x1b'));
}

#[test]
fn what_is_refused_while_the_rest_is_in_force_is_3() {
    let route = "\
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: cnn
spec:
  hosts: [edition.cnn.com]
  http:
  - route: [{destination: {host: nowhere.example}}]
";
    let dir = directory(&[("a.yaml", &format!("{ENTRY}{route}"))]);
    let (code, out, _) = ran(&args(&[dir.path()], None, Output::Text), false);
    assert_eq!(code, 3);
    assert!(out.contains(": refused[IST0101]: no ServiceEntry has the host"), "{out}");
    let end =
        "no errors, 1 refusal, no warnings in 1 file; all of it is in force but what is refused\n";
    assert!(out.ends_with(end), "{out}");
    let (code, out, _) = ran(&args(&[dir.path()], None, Output::Json), false);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    documented("check -o json", &json);
    assert_eq!((code, &json["errors"], &json["refusals"]), (3, &0.into(), &1.into()));
    assert_eq!(json["problems"][0]["severity"], "refused");
    // An error beside it keeps all of it from being put in force.
    fs::write(dir.path().join("b.yaml"), "a: [\n").unwrap();
    let (code, out, _) = ran(&args(&[dir.path()], None, Output::Text), false);
    assert_eq!(code, 1);
    assert!(out.contains("1 error, 1 refusal, no warnings in 2 files; nothing of it"), "{out}");
}

#[test]
fn colours_are_for_terminals() {
    let dir = directory(&[("a.yaml", "a: [\n")]);
    let (_, out, _) = ran(&args(&[dir.path()], None, Output::Text), true);
    assert!(out.contains(": \x1b[1;31merror\x1b[0m: "), "{out}");
}

#[test]
fn json_says_the_same() {
    let dir = directory(&[("a.yaml", &ENTRY.replace("DNS", "DSN"))]);
    let (code, out, _) = ran(&args(&[dir.path()], None, Output::Json), true);
    assert_eq!(code, 1);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    documented("check -o json", &json);
    assert_eq!(json["errors"], 1);
    let problem = &json["problems"][0];
    assert_eq!(problem["severity"], "error");
    assert_eq!(problem["line"], 9);
    assert_eq!(problem["resource"], "ServiceEntry default/cnn");
    assert_eq!(problem["field"], "spec.resolution");
    assert_eq!(problem["found"], "the text \"DSN\"");
}

#[test]
fn what_cannot_be_read_is_2() {
    let dir = directory(&[("service-entry.yaml", ENTRY), ("bad.yaml", "")]);
    let (code, out, err) =
        ran(&args(&[&dir.path().join("service-entri.yaml")], None, Output::Text), false);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("doesn't exist; did you mean"), "{err}");
    assert!(err.contains("service-entry.yaml?"), "{err}");
    let mesh = dir.path().join("nothing-like-it");
    let (code, _, err) = ran(&args(&[dir.path()], Some(&mesh), Output::Text), false);
    assert_eq!(code, 2);
    assert!(err.contains("nothing-like-it"), "{err}");
    fs::write(dir.path().join("bad.yaml"), b"a: \xff\n").unwrap();
    let (code, _, err) = ran(&args(&[dir.path()], None, Output::Text), false);
    assert_eq!(code, 2);
    assert!(err.contains("isn't UTF-8"), "{err}");
}

/// As a terminal shows it.
#[test]
fn problems_fit_a_terminal() {
    let wrong = ENTRY.replace("number: 80", "number: eighty").replace("DNS", "DSN");
    let route = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cnn}
spec:
  hosts: [edition.cnn.com]
  http:
  - route: [{destination: {host: nowhere.example}}]
";
    let shown = |yaml: &str| {
        let file = config::RawFile { path: "a.yaml".into(), text: yaml.into() };
        let problems = match config::compile(&[file], None) {
            Ok(compiled) => compiled.warnings,
            Err(problems) => problems.0,
        };
        let count = |severity| problems.iter().filter(|p| p.severity == severity).count();
        let report = Report {
            files: 1,
            errors: count(Severity::Error),
            refusals: count(Severity::Refusal),
            warnings: count(Severity::Warning),
            problems: &problems,
        };
        let mut out = Vec::new();
        let screen = Screen { colours: false, width: width(true) };
        text(&report, screen, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    golden("check-errors.txt", &shown(&wrong));
    golden("check-refused.txt", &shown(&format!("{ENTRY}---\n{route}")));
    golden("check.txt", &shown(ENTRY));
}

#[test]
fn an_empty_directory_is_an_error() {
    for files in [&[][..], &[("mesh.yaml", "direct: deny\n")]] {
        let dir = directory(files);
        let (code, out, _) = ran(&args(&[dir.path()], None, Output::Text), false);
        assert_eq!(code, 1);
        assert!(out.contains("no resources here"), "{out}");
    }
}

#[test]
fn a_file_given_twice_is_read_once() {
    let dir = directory(&[("a.yaml", ENTRY)]);
    let one = dir.path().join("a.yaml");
    let (code, out, _) = ran(&args(&[dir.path(), &one], None, Output::Text), false);
    assert_eq!(code, 0, "{out}");
}

#[test]
fn mesh_settings_are_found() {
    let dir = directory(&[("a.yaml", ENTRY), ("own.yaml", "direct: nonsense\n")]);
    let mesh = dir.path().join("own.yaml");
    let (code, out, _) = ran(&args(&[dir.path()], Some(&mesh), Output::Text), false);
    assert_eq!(code, 1);
    assert!(out.contains("expected one of deny registry"), "{out}");
    assert!(!out.contains("\"kind\" is missing"), "{out}");
}

#[test]
fn a_missing_certificate_is_told() {
    let rule = "\
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: cnn
spec:
  host: edition.cnn.com
  trafficPolicy:
    tls: {mode: SIMPLE, caCertificates: /nowhere/ca.pem}
";
    let dir = directory(&[("a.yaml", &format!("{ENTRY}{rule}"))]);
    let (code, out, _) = ran(&args(&[dir.path()], None, Output::Text), false);
    assert_eq!(code, 0);
    assert!(out.contains("/nowhere/ca.pem: warning: can't be read here"), "{out}");
}
