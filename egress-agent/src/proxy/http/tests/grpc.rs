//! gRPC through the gateway by a route of the Gateway API: HTTP/2 with trailers on both sides.

use bytes::Bytes;
use http::{Request, StatusCode};

use super::{
    h2::{echo, read},
    harness::{Gateway, Seen, Setup, local, upstream},
};

const HOST: &str = "grpc.example";
const CLUSTER: &str = "outbound|80||grpc.example";
/// A message of gRPC: not compressed, five bytes.
const MESSAGE: &[u8] = b"\0\0\0\0\x05hello";

/// A gateway whose route is for these methods.
async fn start(matches: &str) -> (Gateway, Seen) {
    let (addr, seen) = upstream(|io, _, seen| echo(io, seen)).await;
    let routes = format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: grpc}}
spec:
  gatewayClassName: istio
  listeners:
  - {{name: grpc, hostname: {HOST}, port: 80, protocol: HTTP, allowedRoutes: {{namespaces: {{from: Same}}}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: to-the-gateway}}
spec:
  parentRefs: [{{kind: ServiceEntry, group: networking.istio.io, name: grpc-example}}]
  rules: [{{backendRefs: [{{name: grpc-istio, port: 80}}]}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: from-the-gateway}}
spec:
  parentRefs: [{{name: grpc}}]
  hostnames: [{HOST}]
  rules:
  - matches: [{matches}]
    backendRefs: [{{kind: Hostname, group: networking.istio.io, name: {HOST}, port: 80}}]
"
    );
    let setup = Setup::new().service(HOST, "GRPC", Some(addr), "").manifest(&routes);
    (setup.start().await, seen)
}

/// Calls a method with the message: the status, `grpc-status` of the trailers, and the message that came back.
async fn call(gateway: &Gateway, method: &str) -> (StatusCode, Option<String>, Vec<u8>) {
    let mut client = gateway.connect_h2().await.ready().await.unwrap();
    let request = Request::post(format!("http://{HOST}{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let (response, mut stream) = client.send_request(request.body(()).unwrap(), false).unwrap();
    stream.send_data(Bytes::from_static(MESSAGE), true).unwrap();
    let response = response.await.unwrap();
    let (status, body, trailers) = read(response).await;
    let code = trailers.get("grpc-status").map(|code| code.to_str().unwrap().to_owned());
    (status, code, body)
}

#[test]
fn methods_that_a_route_names_are_called_and_no_others() {
    const GET: &str = "/shop.Orders/Get";
    const DELETE: &str = "/shop.Orders/Delete";
    const OTHER: &str = "/shop.OrdersOfAll/Get";
    for (matches, served, refused) in [
        ("{method: {service: shop.Orders, method: Get}}", &[GET][..], &[DELETE, OTHER][..]),
        ("{method: {service: shop.Orders}}", &[GET, DELETE], &[OTHER]),
        ("{method: {method: Get}}", &[GET, OTHER], &[DELETE]),
        ("{headers: [{name: content-type, value: application/grpc}]}", &[GET, DELETE, OTHER], &[]),
    ] {
        local(async {
            let (gateway, seen) = start(matches).await;
            for method in served {
                let answer = call(&gateway, method).await;
                assert_eq!(
                    answer,
                    (StatusCode::OK, Some("0".into()), MESSAGE.to_vec()),
                    "{matches}"
                );
            }
            // Clients of gRPC take 404 for UNIMPLEMENTED.
            for method in refused {
                let (status, code, _) = call(&gateway, method).await;
                assert_eq!((status, code), (StatusCode::NOT_FOUND, None), "{matches} {method}");
            }
            let asked = seen.requests.borrow().clone();
            assert_eq!(asked.len(), served.len(), "{matches}: {asked:?}");
            for ((asked, body), method) in asked.iter().zip(served) {
                let expected = format!("POST http://{HOST}{method} ");
                assert!(asked.starts_with(&expected), "{asked}");
                assert_eq!(body, MESSAGE);
            }
            let log = gateway.log(served.len() + refused.len()).await;
            // Refusals have a place of their own in the log's queue: not in the requests' order.
            for method in served.iter().chain(refused) {
                let line = log.iter().find(|line| line["path"] == *method).unwrap();
                let is_served = served.contains(method);
                let expected = if is_served { ("-", "-") } else { ("NR", "no_matching_rule") };
                let text = |name: &str| line[name].as_str().unwrap_or("-");
                assert_eq!((text("response_flags"), text("reason")), expected, "{line}");
                assert_eq!(text("upstream_cluster") == CLUSTER, is_served, "{line}");
            }
        });
    }
}
