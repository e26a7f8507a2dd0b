//! What the graph must not have.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::{
    algo::tarjan_scc,
    dot::{Config, Dot},
    graph::{DiGraph, NodeIndex},
};

use super::resolve::{Edges, Name};

/// Modules of one subject, and what the subject is.
pub(super) type Line = (&'static [&'static str], &'static str);

/// Modules that depend on each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Cycle {
    pub(super) modules: Vec<String>,
    /// The edges between them.
    edges: Vec<(String, String)>,
}

impl Cycle {
    /// Each edge, so that one sees which to cut.
    pub(super) fn text(&self) -> String {
        let edges = self.edges.iter().map(|(from, to)| format!("\n    {from} -> {to}"));
        format!("{}{}", self.modules.join(", "), edges.collect::<String>())
    }
}

fn graph(uses: &BTreeMap<Name, BTreeSet<Name>>) -> DiGraph<String, &'static str> {
    let mut graph = DiGraph::new();
    let nodes: BTreeMap<&Name, NodeIndex> =
        uses.keys().map(|module| (module, graph.add_node(module.join("::")))).collect();
    for (from, all) in uses {
        for to in all {
            if let (Some(from), Some(to)) = (nodes.get(from), nodes.get(to)) {
                graph.update_edge(*from, *to, "");
            }
        }
    }
    graph
}

/// Every strongly connected component of two or more modules, the largest first.
pub(super) fn cycles(edges: &Edges) -> Vec<Cycle> {
    let graph = graph(&edges.uses);
    let mut cycles: Vec<Cycle> = tarjan_scc(&graph)
        .into_iter()
        .filter(|component| component.len() > 1)
        .map(|component| {
            let inside: BTreeSet<NodeIndex> = component.into_iter().collect();
            let mut modules: Vec<String> = inside.iter().map(|node| graph[*node].clone()).collect();
            modules.sort();
            let mut edges: Vec<(String, String)> = graph
                .edge_indices()
                .filter_map(|edge| graph.edge_endpoints(edge))
                .filter(|(from, to)| inside.contains(from) && inside.contains(to))
                .map(|(from, to)| (graph[from].clone(), graph[to].clone()))
                .collect();
            edges.sort();
            Cycle { modules, edges }
        })
        .collect();
    cycles.sort_by_key(|cycle| (usize::MAX - cycle.modules.len(), cycle.modules.clone()));
    cycles
}

/// The graph in graphviz' language.
pub(super) fn dot(edges: &Edges) -> String {
    format!("{}", Dot::with_config(&graph(&edges.uses), &[Config::EdgeNoLabel]))
}

/// Imports of one crate that the layers forbid.
pub(super) fn upward(
    edges: &Edges,
    tree: &str,
    layers: &[&[Line]],
    siblings: &[(&str, &str)],
) -> Vec<String> {
    let layer = |module: &str| {
        layers.iter().position(|lines| lines.iter().any(|(names, _)| names.contains(&module)))
    };
    let mut faults = BTreeSet::new();
    for (from, named) in edges.names.iter().chain(&edges.uses) {
        let [of, mine, ..] = &from[..] else { continue };
        if of != tree {
            continue;
        }
        for to in named {
            let [other_tree, other, ..] = &to[..] else { continue };
            if other_tree != tree || other == mine {
                continue;
            }
            let why = match (layer(mine), layer(other)) {
                (None, _) => format!("`{mine}` is in no layer"),
                (_, None) => format!("`{other}` is in no layer"),
                (Some(own), Some(theirs)) if theirs < own => "that is a layer above".to_owned(),
                (Some(own), Some(theirs))
                    if theirs == own && !siblings.contains(&(mine.as_str(), other.as_str())) =>
                {
                    "that is in the same layer".to_owned()
                }
                _ => continue,
            };
            faults.insert(format!("{} imports {}: {why}", from.join("::"), to.join("::")));
        }
    }
    faults.into_iter().collect()
}
