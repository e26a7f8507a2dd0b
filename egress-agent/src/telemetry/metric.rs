//! Metrics that other parts of the agent bring along, such as the kernel's counters on a node.

/// One value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Metric {
    /// Prometheus' name, such as `egress_node_verdicts_total`.
    pub name: &'static str,
    /// One sentence for `# HELP`.
    pub help: &'static str,
    /// Whether it may fall.
    pub kind: MetricKind,
    /// Labels in the order in which they are written. Their values come from fixed sets or the
    /// configuration, never from traffic.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: u64,
}

/// What a value may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetricKind {
    /// Only rise.
    Counter,
    /// Rise and fall.
    Gauge,
}

/// Reads metrics when somebody asks for them.
pub trait Collect: Send + Sync {
    /// Appends all values; those of one name in a row.
    fn collect(&self, metrics: &mut Vec<Metric>);
}
