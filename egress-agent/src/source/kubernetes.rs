//! The configuration and the pods from a Kubernetes API server.
//!
//! Each kind is listed and watched by a task of its own. What they report is put together by one task,
//! which publishes the whole once every first list is complete, and again whenever something has
//! changed. A server that is gone, silent or starting changes nothing: what was published stays.

mod api_object;
mod assemble;
mod client;
mod external_name;
mod follow;
mod kinds;
mod networks;
mod objects;
mod pause;
mod report;
mod secrets;
mod settings;
mod state;
mod step;
mod taint;

use tokio::sync::mpsc;

use self::{
    assemble::Assembler,
    follow::{Follow, follow},
    kinds::{CUSTOM, Kind},
    objects::{Object, pod},
    state::Update,
    step::Step,
};
pub use self::{
    assemble::Kubernetes,
    client::ClientError,
    report::Reports,
    settings::{More, Scope, Settings},
    taint::StartupTaint,
};

/// Updates that wait for the task that puts them together.
const WAITING: usize = 1024;

/// Begins to list and watch. Ends with the receivers.
///
/// # Errors
/// There is no usable kubeconfig or service account. A server that isn't reached is no error.
pub async fn start(settings: Settings) -> Result<Kubernetes, ClientError> {
    let client = client::new(&settings).await?;
    let (updates, receiver) = mpsc::channel(WAITING);
    let More { secrets: wanted, taint, reports, agents } = settings.more;
    let rollout = reports.as_ref().map(|reports| reports.rollout.clone());
    let (assembler, published, reporting) = Assembler::new(receiver, rollout);
    tokio::spawn(assembler.run());
    // A gateway knows all that policies are about, and there are few of them.
    if let Some(reports) = reports {
        spawn(report::run(client.clone(), reporting.objects, reporting.judged, reports));
    }
    if let Some(wanted) = wanted {
        spawn(secrets::run(client.clone(), wanted));
    }
    if let Some(taint) = taint {
        spawn(taint::run(client.clone(), taint));
    }
    let (pods_of, pods) = match &settings.scope {
        Scope::Node(name) => (None, Some(format!("spec.nodeName={name}"))),
        Scope::Namespace(namespace) => (Some(namespace.clone()), None),
        Scope::Cluster => (None, None),
    };
    for (index, kind) in CUSTOM.into_iter().enumerate() {
        let of = Follow { kinds: kind.versions(), ..Follow::of(&client) };
        let convert = move |object: &Object| {
            Some((objects::resource(kind, object)?, objects::known(index, object)?))
        };
        spawn(follow(of, updates.clone(), convert, move |step| Update::Custom(index, step)));
    }
    let of = Follow { kinds: vec![Kind::core("Namespace", "namespaces")], ..Follow::of(&client) };
    spawn(follow(of, updates.clone(), objects::namespace, Update::Namespace));
    let (namespace, name) = settings.mesh;
    let mesh = Follow {
        kinds: vec![Kind::core("ConfigMap", "configmaps")],
        namespace: Some(namespace),
        fields: Some(format!("metadata.name={name}")),
        ..Follow::of(&client)
    };
    spawn(follow(mesh, updates.clone(), objects::settings, Update::Mesh));
    let gateways = |kind: Kind| Follow {
        kinds: vec![kind],
        namespace: Some(settings.gateways.clone()),
        ..Follow::of(&client)
    };
    if settings.external_names {
        let of = Follow {
            kinds: vec![Kind::core("Service", "services")],
            fields: Some("spec.type=ExternalName".into()),
            ..Follow::of(&client)
        };
        spawn(follow(of, updates.clone(), external_name::service_entry, Update::ExternalName));
    } else {
        // Nobody waits for what is not asked for.
        drop(updates.send(Update::ExternalName(Step::Replace(Vec::new()))).await);
    }
    let services = gateways(Kind::core("Service", "services"));
    spawn(follow(services, updates.clone(), objects::service, Update::Service));
    let slices = gateways(Kind::of("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"));
    spawn(follow(slices, updates.clone(), objects::slice, Update::Slice));
    let nodes = Follow { kinds: vec![Kind::core("Node", "nodes")], ..Follow::of(&client) };
    let node = move |object: &Object| objects::node(object, &agents);
    spawn(follow(nodes, updates.clone(), node, Update::Node));
    let cidrs = Follow {
        kinds: ["v1", "v1beta1"]
            .map(|version| {
                Kind::of("networking.k8s.io", version, "ServiceCIDR", "servicecidrs").optional()
            })
            .into(),
        ..Follow::of(&client)
    };
    spawn(follow(cidrs, updates.clone(), networks::service_cidr, Update::ServiceCidr));
    let one = |kind: Kind, namespace: &str, name: &str| Follow {
        kinds: vec![kind.optional()],
        namespace: Some(namespace.into()),
        fields: Some(format!("metadata.name={name}")),
        ..Follow::of(&client)
    };
    let kubeadm = one(Kind::core("ConfigMap", "configmaps"), "kube-system", "kubeadm-config");
    spawn(follow(kubeadm, updates.clone(), networks::kubeadm, Update::Kubeadm));
    let api = one(Kind::core("Service", "services"), "default", "kubernetes");
    spawn(follow(api, updates.clone(), objects::service, Update::ApiService));
    let of = Follow {
        kinds: vec![Kind::core("Pod", "pods")],
        namespace: pods_of,
        fields: pods,
        ..Follow::of(&client)
    };
    spawn(follow(of, updates, pod, Update::Pod));
    Ok(published)
}

fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(work));
}
