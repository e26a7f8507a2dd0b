//! Connections to addresses that have left the host's DNS answer.

use std::time::Duration;

use super::harness::{Gateway, Setup, answering, local, until};
use crate::telemetry::ClusterCounter;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const CLUSTER: &str = "outbound|80||a.example";

/// `a.example` has the first address; the second one leads to the same server.
async fn start(drain: &str) -> Gateway {
    let (addr, _) = answering(OK).await;
    let mut setup = Setup::new().http("a.example", addr).http("b.example", addr);
    setup.mesh = format!("addressDrainTime: {drain}\n");
    setup.start().await
}

fn open(gateway: &Gateway) -> u64 {
    gateway.cluster(CLUSTER, ClusterCounter::CxActive)
}

async fn upstream_of(gateway: &Gateway, count: usize) -> String {
    assert_eq!(gateway.get("a.example").await.status, 200);
    gateway.log(count).await[count - 1]["upstream_host"].as_str().unwrap().to_owned()
}

#[test]
fn an_address_that_is_gone_gets_no_request_and_its_connection_is_closed() {
    local(async {
        let gateway = start("0s").await;
        assert_eq!(upstream_of(&gateway, 1).await, "198.51.100.1:80");
        gateway.outside.rename("a.example", &["198.51.100.2"]);
        assert_eq!(upstream_of(&gateway, 2).await, "198.51.100.2:80");
        assert_eq!(gateway.cluster(CLUSTER, ClusterCounter::CxTotal), 2);
        until(|| open(&gateway) == 1).await;
        assert_eq!(upstream_of(&gateway, 3).await, "198.51.100.2:80");
    });
}

#[test]
fn one_that_comes_back_in_time_has_kept_its_connection() {
    local(async {
        let gateway = start("1h").await;
        upstream_of(&gateway, 1).await;
        gateway.outside.rename("a.example", &["198.51.100.2"]);
        upstream_of(&gateway, 2).await;
        // More than one sweep.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(open(&gateway), 2);
        gateway.outside.rename("a.example", &["198.51.100.1"]);
        assert_eq!(upstream_of(&gateway, 3).await, "198.51.100.1:80");
        assert_eq!(gateway.cluster(CLUSTER, ClusterCounter::CxTotal), 2);
    });
}
