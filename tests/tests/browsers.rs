//! Chromium and Firefox as people have them: through a passthrough route, and on the gateway's own page.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{env, fs, path::PathBuf};

use egress_tests::{
    browser::{Browser, firefox},
    cgroup,
    manifests::Walkthrough,
    outside::Seen,
    plan,
    process::Process,
    testbed::{Testbed, mesh_yaml},
    wait::{SOON, START, until, until_is},
};
use serde_json::Value;

const URL: &str = "https://edition.cnn.com/politics";
const REFUSED: &str = "https://www.example.com/";
const UI: &str = "http://localhost:15000/ui";

/// Node and gateway with the walkthrough's passthrough.
struct World {
    testbed: Testbed,
    _node: Process,
    gateway: Process,
}

impl World {
    fn new(more_mesh: &str) -> Self {
        let testbed = Testbed::test(1).unwrap();
        testbed.apply_mesh(&mesh(&testbed, more_mesh)).unwrap();
        Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
        let gateway = testbed.start_gateway_with(0, &["--admin-ui".into()]).unwrap();
        let node = testbed.start_node().unwrap();
        let world = Self { testbed, _node: node, gateway };
        world.curl(URL, "200");
        world
    }

    fn curl(&self, url: &str, expected: &str) {
        let ask = || self.testbed.curl_status(&[url]).unwrap();
        until_is(SOON, url, ask, |seen| seen.starts_with(expected)).unwrap();
    }

    fn browser(&self, name: &str) -> Browser {
        Browser::start(self.testbed.pod(), &self.testbed.dir(), name).unwrap()
    }

    /// Follows what the gateway decides from here on.
    fn follow(&self) -> Process {
        let control = self.testbed.gateway_control(0).to_string_lossy().into_owned();
        let agent = self.testbed.agent().to_string_lossy();
        let args = ["flows", "--follow", "--control", &control, "-o", "json"];
        self.testbed.app().start(&self.testbed.dir(), "flows", &agent, &args).unwrap()
    }

    /// The lines of its access log about passthrough of the host, by whether they are marked.
    fn logged(&self, marked: bool) -> Vec<Value> {
        let log = self.gateway.stdout();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let of_host = lines.filter(|line| line["requested_server_name"] == plan::HOST);
        of_host.filter(|line| (line["ech"] == "present") == marked).collect()
    }
}

/// What was decided about the host, whether or not its hello was encrypted.
fn flows(following: &Process) -> Vec<Value> {
    let text = following.stdout();
    let flows = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    flows.filter(|flow| flow["host"] == plan::HOST).collect()
}

/// The pod is known as shop/web.
fn mesh(testbed: &Testbed, more: &str) -> String {
    let cgroup = cgroup::below_mount(&testbed.pod().cgroup).unwrap();
    format!(
        "{}workloads:\n- name: web\n  namespace: shop\n  labels: {{app: web}}\n  addresses: [{}]\n  \
         cgroups: [{cgroup}]\n  interface: {}\naccessLogEncoding: JSON\n{more}",
        mesh_yaml(1),
        plan::POD,
        plan::POD_INTERFACE,
    )
}

/// Its hello has random bytes in the place of an encrypted one, as for every server.
#[test]
fn chromium_loads_pages_through_a_passthrough_route_and_is_refused_where_encrypted_hellos_are() {
    let world = World::new("encryptedClientHello: deny\n");
    let following = world.follow();
    let mut chromium = world.browser("chromium");
    let version = chromium.call("Browser.getVersion", &serde_json::json!({})).unwrap();
    println!("{} through the gateway", version["product"]);
    world.testbed.record().take();
    let error = chromium.open(URL).unwrap().unwrap_or_default();
    assert!(error.starts_with("net::ERR_"), "{error}");
    assert_eq!(world.testbed.record().take(), [], "nothing of it reached the host");
    let is_refused = |flow: &&Value| flow["reason"] == "encrypted_client_hello";
    let refused = || flows(&following).iter().find(is_refused).cloned();
    let flow = until(SOON, "a refusal", refused).unwrap();
    assert_eq!((&flow["verdict"], &flow["ech"]), (&"deny".into(), &true.into()), "{flow:#}");
    assert_eq!(flow["workload"], "web", "{flow:#}");
    // Whoever sends none is served meanwhile.
    world.curl(URL, "200");

    world.testbed.apply_mesh(&mesh(&world.testbed, "")).unwrap();
    let load = || chromium.open(URL).unwrap();
    until_is(SOON, "the page", load, Option::is_none).unwrap();
    let title = chromium.evaluate("document.title").unwrap();
    assert_eq!(title, plan::HOST, "with a certificate that it trusts");
    let paragraphs = chromium.evaluate("document.querySelectorAll('p').length > 1000").unwrap();
    assert_eq!(paragraphs, true);
    // A host that no rule names is refused.
    let error = chromium.open(REFUSED).unwrap().unwrap_or_default();
    assert!(error.starts_with("net::ERR_"), "{error}");
    // A connection is logged at its end.
    drop(chromium);
    let allowed = |marked: bool| {
        let flows = flows(&following).into_iter().filter(|flow| flow["verdict"] == "allow");
        flows.filter(|flow| (flow["ech"] == true) == marked).count()
    };
    until(SOON, "the browser's flow", || (allowed(true) > 0).then_some(())).unwrap();
    assert!(allowed(false) > 0, "curl sends none");
    let served = |lines: &Vec<Value>| lines.iter().any(|line| line["response_flags"] == "-");
    until_is(SOON, "its line in the log", || world.logged(true), served).unwrap();
    assert!(served(&world.logged(false)));
}

/// Configurations that the gateway has put in force.
fn accepted(testbed: &Testbed) -> u64 {
    let metrics = testbed.admin(0, "stats/prometheus").unwrap();
    let series = "egress_config_reloads_total{result=\"accepted\"} ";
    let value = metrics.lines().find_map(|line| line.strip_prefix(series));
    value.map_or(0, |value| value.trim().parse().unwrap())
}

/// Its hello is marked like Chromium's.
#[test]
fn firefox_loads_a_page_through_a_passthrough_route_and_is_refused_where_encrypted_hellos_are() {
    let world = World::new("encryptedClientHello: deny\n");
    let following = world.follow();
    let (pod, dir) = (world.testbed.pod(), world.testbed.dir());
    let version = pod.run("firefox-esr", &["--version"]).unwrap();
    assert!(version.ok(), "package firefox-esr: {version:?}");
    println!("{} through the gateway", version.stdout.trim());
    let marked = |verdict: &str| {
        let flows = flows(&following);
        flows.iter().any(|flow| flow["verdict"] == verdict && flow["ech"] == true)
    };
    world.testbed.record().take();
    let refused = firefox(pod, &dir, "refused", URL).unwrap();
    until(START, "a refusal", || marked("deny").then_some(())).unwrap();
    drop(refused);
    assert_eq!(world.testbed.record().take(), [], "nothing of it reached the host");
    assert!(!dir.join("refused.png").exists() && !marked("allow"));

    let before = accepted(&world.testbed);
    world.testbed.apply_mesh(&mesh(&world.testbed, "")).unwrap();
    let is_new = || (accepted(&world.testbed) > before).then_some(());
    until(SOON, "the new configuration", is_new).unwrap();
    let mut loaded = firefox(pod, &dir, "loaded", URL).unwrap();
    let status = loaded.wait(START).unwrap();
    assert!(status.success() && dir.join("loaded.png").exists(), "{}", loaded.stderr());
    until(SOON, "its flow", || marked("allow").then_some(())).unwrap();
    let asked = world.testbed.record().take();
    let page = |seen: &Seen| matches!(seen, Seen::Https { path, .. } if path == "/politics");
    assert!(asked.iter().any(page), "{asked:?}");
}

/// The rows of the live table that are shown.
const ROWS: &str = "[...document.querySelectorAll('#flows tr')].filter(tr => !tr.hidden)
    .map(tr => tr.textContent)";

/// The page, once `wanted` holds for what it shows under `expression`.
fn shown(
    page: &mut Browser,
    what: &str,
    expression: &str,
    wanted: impl Fn(&str) -> bool,
) -> String {
    let ask = || {
        let value = page.evaluate(expression).unwrap();
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    };
    until_is(SOON, what, ask, |text| wanted(text)).unwrap()
}

/// Where the picture for the documentation goes: `EGRESS_SCREENSHOT=docs/admin-ui.png`.
fn picture() -> Option<PathBuf> {
    env::var_os("EGRESS_SCREENSHOT").map(PathBuf::from)
}

#[test]
fn the_gateways_page_shows_what_is_in_force_and_what_happens() {
    let world = World::new("");
    let place = world.testbed.gateway(0);
    let mut page = Browser::start(place, &world.testbed.dir(), "ui").unwrap();
    assert_eq!(page.open(UI).unwrap(), None);
    let text = |id: &str| format!("document.getElementById('{id}').textContent");
    shown(&mut page, "the state", &text("state"), |text| text.starts_with("LIVE"));
    let force = shown(&mut page, "what is in force", &text("force"), |text| !text.is_empty());
    assert!(force.contains("REGISTRY_ONLY") && force.contains("what the files say"), "{force}");
    // What was before the page is in its tables.
    shown(&mut page, "who talks to what", &text("talks"), |text| {
        text.contains("shop/web") && text.contains(plan::HOST)
    });
    shown(&mut page, "the live table", &text("live"), |text| text == "following");

    // What happens from here on comes by itself, to the same page.
    page.evaluate("globalThis.same = true").unwrap();
    world.curl(URL, "200");
    world.curl(REFUSED, "curl: ");
    shown(&mut page, "both flows", ROWS, |rows| {
        rows.contains("edition.cnn.com:443") && rows.contains("www.example.com:443")
    });
    let refused = |rows: &str| {
        rows.contains("www.example.com") && !rows.contains(plan::HOST) && rows.contains("refused")
    };
    page.evaluate("document.getElementById('filter').focus()").unwrap();
    page.type_in("WWW.example").unwrap();
    shown(&mut page, "what the filter leaves", ROWS, refused);
    // What comes meanwhile goes through the filter, too.
    world.curl(URL, "200");
    world.curl(REFUSED, "curl: ");
    let more = |rows: &str| refused(rows) && rows.matches("www.example.com").count() > 1;
    shown(&mut page, "another refusal", ROWS, more);
    let clear = "const filter = document.getElementById('filter'); filter.value = '';
        filter.dispatchEvent(new Event('input'))";
    page.evaluate(clear).unwrap();
    shown(&mut page, "all of them", ROWS, |rows| rows.contains(plan::HOST));
    page.evaluate("document.getElementById('denied').click()").unwrap();
    shown(&mut page, "refusals", ROWS, refused);
    page.evaluate("document.getElementById('denied').click()").unwrap();
    let refusals = shown(&mut page, "counted refusals", &text("refusals"), |text| {
        text.contains("www.example.com")
    });
    assert!(refusals.contains("shop/web"), "{refusals}");
    assert_eq!(page.evaluate("globalThis.same").unwrap(), true);

    let requests = page.requests();
    assert!(requests.iter().any(|url| url.ends_with("/ui/flows")), "{requests:?}");
    for url in &requests {
        assert!(url.starts_with("http://localhost:15000/"), "{requests:?}");
    }
    assert_eq!(page.violations(), Vec::<String>::new());
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)").unwrap();
    let picture_bytes = page.screenshot(1100, 860).unwrap();
    assert!(picture_bytes.starts_with(b"\x89PNG") && picture_bytes.len() < 200 << 10);
    if let Some(path) = picture() {
        fs::write(&path, picture_bytes).unwrap();
        println!("{}", path.display());
    }
}

/// Names from the configuration and what clients say are text on the page: no markup in them becomes an element, and
/// no script in them runs.
#[test]
fn markup_in_names_hosts_and_paths_stays_text_on_the_page() {
    const MARKUP: &str = "<img src=x onerror=globalThis.ran=1>";
    let world = World::new("");
    let named = mesh(&world.testbed, "").replace("- name: web", &format!("- name: '{MARKUP}'"));
    world.testbed.apply_mesh(&named).unwrap();
    let place = world.testbed.gateway(0);
    let mut page = Browser::start(place, &world.testbed.dir(), "markup").unwrap();
    assert_eq!(page.open(UI).unwrap(), None);
    let text = |id: &str| format!("document.getElementById('{id}').textContent");
    shown(&mut page, "the live table", &text("live"), |text| text == "following");
    // Each in a field of its own: the server name, the host and the path of a request, what comes after the method.
    let raw = |what: &str| {
        let script = format!("exec 3<>/dev/tcp/{}/443; printf '{what}' >&3; cat <&3", plan::WEB);
        world.testbed.pod().run("timeout", &["10", "bash", "-c", &script]).unwrap()
    };
    let requests = [
        format!("GET / HTTP/1.1\\r\\nHost: {MARKUP}\\r\\n\\r\\n"),
        format!("GET /{MARKUP} HTTP/1.1\\r\\nHost: www.example.com\\r\\n\\r\\n"),
        format!(
            "GET /{} HTTP/1.1\\r\\nHost: www.example.com\\r\\n\\r\\n",
            MARKUP.replace(' ', "%%20")
        ),
    ];
    let hello = format!("{}:443", plan::WEB);
    let sends = |page: &mut Browser| {
        requests.iter().for_each(|request| drop(raw(request)));
        let args = ["10", "openssl", "s_client", "-connect", &hello, "-servername", MARKUP];
        world.testbed.pod().run("timeout", &args).unwrap();
        page.evaluate(ROWS).unwrap().to_string()
    };
    // The workload has its new name once the configuration is in force.
    let by_name = |rows: &String| rows.contains(&format!("shop/{MARKUP}"));
    let rows = until_is(SOON, "the workload's name", || sends(&mut page), by_name).unwrap();
    assert!(rows.contains("refused"), "{rows}");
    shown(&mut page, "the refusals", &text("refusals"), |text| text.contains(MARKUP));
    // What is no host's name is not shown at all.
    let rows = shown(&mut page, "the refusals of both kinds", ROWS, |rows| {
        rows.contains("invalid_server_name") && rows.contains("bad_request")
    });
    assert!(rows.contains("www.example.com"), "{rows}");
    let elements = "document.querySelectorAll('img, main script, td *, dd *').length";
    assert_eq!(page.evaluate(elements).unwrap(), 0);
    assert_eq!(page.evaluate("String(globalThis.ran)").unwrap(), "undefined");
    // The twin: the same text as markup is an element, and its script is against the page's policy.
    let inserted = format!("document.body.insertAdjacentHTML('beforeend', '{MARKUP}')");
    page.evaluate(&inserted).unwrap();
    assert_eq!(page.evaluate("document.querySelectorAll('img').length").unwrap(), 1);
    for url in page.requests() {
        assert!(url.starts_with("http://localhost:15000/"), "{url}");
    }
}

#[test]
fn without_the_flag_there_is_no_page() {
    let testbed = Testbed::test(1).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let mut page = Browser::start(testbed.gateway(0), &testbed.dir(), "ui").unwrap();
    assert_eq!(page.open(UI).unwrap(), None);
    let text = page.evaluate("document.body.textContent").unwrap();
    assert_eq!(text, "the page is off; start the gateway with --admin-ui\n");
    assert_eq!(page.evaluate("document.getElementById('flows')").unwrap(), Value::Null);
}
