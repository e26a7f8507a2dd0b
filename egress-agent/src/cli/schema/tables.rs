//! The tables.

use super::{
    form::{Field, Schema, field},
    status::STATUS,
};

/// Every command that writes JSON.
pub const SCHEMAS: &[Schema] = &[
    Schema { command: "check -o json", what: "One object.", fields: CHECK },
    Schema { command: "explain -o json", what: "One object.", fields: EXPLAIN },
    Schema {
        command: "flows -o json",
        what: "An object a line. A line `{\"lost\":12}` stands for flows that nobody has seen.",
        fields: FLOWS,
    },
    Schema {
        command: "flows --summary -o json",
        what: "An object a line, most frequent first.",
        fields: FLOWS_SUMMARY,
    },
    Schema { command: "status -o json", what: "One object.", fields: STATUS },
    Schema { command: "certs show -o json", what: "One object.", fields: CERTS_SHOW },
    Schema { command: "doctor -o json", what: "One object.", fields: DOCTOR },
    Schema { command: "kernel -o json", what: "One object.", fields: KERNEL },
    Schema { command: "probe -o json", what: "One object.", fields: PROBE },
    Schema {
        command: "probe --list -o json",
        what: "One list, whose elements are these objects.",
        fields: PROBE_LIST,
    },
    Schema {
        command: "probe --canary-server -o json",
        what: "An object a line, as it arrives.",
        fields: PROBE_CANARY,
    },
    Schema { command: "upgrade -o json", what: "One object.", fields: UPGRADE },
    Schema { command: "version -o json", what: "One object.", fields: VERSION },
];

const CHECK: &[Field] = &[
    field("files", "number", "Files that were read."),
    field("errors", "number", "How many problems are errors: with one, nothing is put in force."),
    field("refusals", "number", "How many problems are about parts that are refused."),
    field("warnings", "number", "How many problems are warnings."),
    field("problems", "list", "All of them."),
    field("problems[]", "object", "A problem."),
    field("problems[].severity", "string", "`error`, `refused` or `warning`."),
    field("problems[].code", "string?", "The code of Istio's analyzer message that says the same."),
    field("problems[].file", "string", "The file."),
    field("problems[].line", "number?", "The line in it, from 1."),
    field("problems[].resource", "string?", "The resource."),
    field("problems[].field", "string?", "The field of the resource."),
    field("problems[].found", "string?", "What is there."),
    field("problems[].expected", "string?", "What should be there."),
    field("problems[].message", "string", "What is wrong, and what to do."),
];

const EXPLAIN: &[Field] = &[
    field("from", "string", "The workload."),
    field("url", "string", "The URL."),
    field("verdict", "string", "`allowed`, `answered` or `refused`."),
    field("reason", "string", "The reason, as flows and metrics name it."),
    field(
        "detail",
        "string",
        "A sentence; for a refusal the one that client, log and `flows` have.",
    ),
    field(
        "enforced",
        "object?",
        "What would become of it without audit mode, where the workload is in it.",
    ),
    field("enforced.verdict", "string", "`allowed`, `answered` or `refused`."),
    field("enforced.reason", "string", "The reason, as flows and metrics name it."),
    field(
        "enforced.detail",
        "string",
        "A sentence; for a refusal the one that client, log and `flows` have.",
    ),
    field("steps", "list", "How it comes about."),
    field("steps[]", "object", "A step."),
    field(
        "steps[].step",
        "string",
        "Which one; [Commands](../commands.md#explain-a-request) lists them.",
    ),
    field("steps[].text", "string", "What happens."),
    field("steps[].by", "list?", "The resources that say so."),
    field("steps[].by[]", "object", "A resource."),
    field("steps[].by[].resource", "string", "Its kind, namespace and name."),
    field("steps[].by[].field", "string", "The field; empty for the resource as a whole."),
    field("steps[].by[].file", "string", "The file; empty where it came from an API server."),
    field("steps[].by[].line", "number", "The line in it, from 1."),
];

const FLOWS: &[Field] = &[
    field("time", "string", "When it was judged."),
    field(
        "hook",
        "string",
        "Where: `connect`, `sendmsg`, `skb`, `pod`, `uplink`, `socket`, `tunnel` or `gateway`.",
    ),
    field("verdict", "string", "`allow`, `deny`, `redirect` or `fail`."),
    field("reason", "string?", "Why, by its [name](reasons.md)."),
    field("audit", "boolean", "Audit mode let it pass all the same."),
    field("set", "string?", "The set of workloads (`enforcementOverrides`) that it was judged by."),
    field("workload", "string?", "The workload's name."),
    field("namespace", "string?", "The workload's namespace."),
    field("labels", "object?", "The workload's labels, at most 1 KiB of them."),
    field("labels.*", "string", "The value of a label."),
    field("pid", "number?", "The process that made the system call, as the node numbers it."),
    field("executable", "string?", "The program that the process ran when the event was read."),
    field("command", "string?", "The name that the process had given itself."),
    field("container", "string?", "The container's id, as its runtime gives it."),
    field("cgroup", "string?", "The cgroup of the process, below the cgroup2 mount."),
    field("interface", "string?", "The interface where the packet was seen."),
    field("source_address", "string?", "Where it comes from."),
    field("source_port", "number?", "The port there."),
    field(
        "destination_address",
        "string?",
        "Where the application wanted to go. A gateway does not know the address.",
    ),
    field("destination_port", "number?", "The port that it connected to."),
    field(
        "host",
        "string?",
        "The authority or the TLS server name, as the client said it; on a node the names that resolve to the destination.",
    ),
    field("protocol", "string", "`TCP`, `ICMP`, `TLS`, `HTTP/1.1` and the like."),
    field(
        "ech",
        "boolean?",
        "The ClientHello had an encrypted one inside. Left out where it had none.",
    ),
    field("upstream", "string?", "The address and port that the gateway connected to."),
    field("response_code", "number?", "The status that an HTTP client got."),
    field("response_flags", "string?", "Envoy's response flags."),
    field("detail", "string?", "A sentence that says more."),
    field("server", "string?", "The host that was asked, with `--server`."),
];

const FLOWS_SUMMARY: &[Field] = &[
    field("times", "number", "How often."),
    field("workload", "string", "The workload, or what is known of the source."),
    field("destination", "string", "The host, the address, or both."),
    field("protocol", "string", "The protocol."),
    field(
        "verdict",
        "string",
        "`allowed`, `redirected`, `denied`, `failed`, `would deny` or `would redirect`.",
    ),
    field("reason", "string", "The reason, or empty."),
    field("first", "string", "When first."),
    field("last", "string", "When last."),
];

const CERTS_SHOW: &[Field] = &[
    field("certificates", "list", "What was asked for."),
    field("certificates[]", "object", "A credential."),
    field("certificates[].name", "string", "Its name, directory or file."),
    field("certificates[].used_by", "list?", "What it is for."),
    field("certificates[].used_by[]", "string", "A resource, or a role."),
    field("certificates[].chain", "list", "The certificate, then those of its issuers."),
    field("certificates[].chain[]", "object", "A certificate."),
    field("certificates[].chain[].subject", "string", "Its subject."),
    field("certificates[].chain[].issuer", "string", "Its issuer."),
    field("certificates[].chain[].serial", "string", "Its serial number, hexadecimal."),
    field(
        "certificates[].chain[].fingerprint_sha256",
        "string",
        "The SHA-256 of its DER form, hexadecimal.",
    ),
    field("certificates[].chain[].spiffe_id", "string?", "Its SPIFFE ID, where it has one."),
    field("certificates[].chain[].uris", "list?", "Its other URIs."),
    field("certificates[].chain[].uris[]", "string", "A URI."),
    field("certificates[].chain[].names", "list?", "Its names and addresses."),
    field("certificates[].chain[].names[]", "string", "A name."),
    field("certificates[].chain[].ca", "boolean", "Whether it is a CA's."),
    field("certificates[].chain[].not_before", "string", "From when on it is valid."),
    field("certificates[].chain[].not_after", "string", "Until when it is valid."),
    field(
        "certificates[].chain[].days_left",
        "number",
        "Days that it is still valid; negative where it has expired.",
    ),
    field("certificates[].roots", "list?", "Roots that peers are verified with."),
    field("certificates[].roots[]", "object", "A certificate."),
    field("certificates[].roots[].subject", "string", "Its subject."),
    field("certificates[].roots[].issuer", "string", "Its issuer."),
    field("certificates[].roots[].serial", "string", "Its serial number, hexadecimal."),
    field(
        "certificates[].roots[].fingerprint_sha256",
        "string",
        "The SHA-256 of its DER form, hexadecimal.",
    ),
    field("certificates[].roots[].spiffe_id", "string?", "Its SPIFFE ID, where it has one."),
    field("certificates[].roots[].uris", "list?", "Its other URIs."),
    field("certificates[].roots[].uris[]", "string", "A URI."),
    field("certificates[].roots[].names", "list?", "Its names and addresses."),
    field("certificates[].roots[].names[]", "string", "A name."),
    field("certificates[].roots[].ca", "boolean", "Whether it is a CA's."),
    field("certificates[].roots[].not_before", "string", "From when on it is valid."),
    field("certificates[].roots[].not_after", "string", "Until when it is valid."),
    field(
        "certificates[].roots[].days_left",
        "number",
        "Days that it is still valid; negative where it has expired.",
    ),
    field("certificates[].revocation_lists", "list?", "Certificate revocation lists."),
    field("certificates[].revocation_lists[]", "object", "A list."),
    field("certificates[].revocation_lists[].issuer", "string", "Its issuer."),
    field("certificates[].revocation_lists[].revoked", "number", "Certificates that it revokes."),
    field("certificates[].revocation_lists[].next_update", "string?", "When the next one is due."),
    field("certificates[].problems", "list", "What is wrong."),
    field("certificates[].problems[]", "object", "A problem."),
    field("certificates[].problems[].severity", "string", "`error` or `warning`."),
    field("certificates[].problems[].message", "string", "What is wrong."),
];

const DOCTOR: &[Field] = &[
    field("findings", "list", "What was looked at."),
    field("findings[]", "object", "A finding."),
    field("findings[].level", "string", "`ok`, `warning` or `failure`."),
    field("findings[].check", "string", "What was looked at."),
    field("findings[].text", "string", "What was found, and what to do."),
];

const KERNEL: &[Field] = &[
    field("release", "string", "The kernel's release."),
    field("build", "string", "`debug` or `release`."),
    field("compiler", "string", "What the eBPF programs were built with."),
    field("tcx", "boolean", "Whether there are tcx links."),
    field("set_retval", "boolean", "Whether a refused connect has an error number of its own."),
    field(
        "no_lsm",
        "string?",
        "Why programs of security modules can't be loaded; `null` where they can.",
    ),
    field("programs", "object", "Instructions that the verifier went through, by program."),
    field("programs.*", "number?", "The number, where the kernel says it."),
];

const PROBE: &[Field] = &[
    field("probe", "string", "The token that the canary recognises."),
    field("targets", "list", "The canary's addresses."),
    field("targets[]", "string", "An address."),
    field(
        "allowed",
        "boolean?",
        "Whether the connection of `--allow-check` works; `null` where it was not asked for.",
    ),
    field("allowed_detail", "string?", "The result, in words."),
    field("answered", "number", "Attempts that got out and were answered."),
    field("attempts", "list", "All of them."),
    field("attempts[]", "object", "An attempt."),
    field("attempts[].name", "string", "Its name with its family and port."),
    field("attempts[].attempt", "string", "Its name for `--only`."),
    field("attempts[].family", "string", "`IPv4` or `IPv6`."),
    field("attempts[].what", "string", "What it does."),
    field("attempts[].kinds", "list", "The kinds of bypass that it is of."),
    field("attempts[].kinds[]", "string", "A kind."),
    field("attempts[].port", "number", "The canary's port."),
    field(
        "attempts[].result",
        "string",
        "`answered`, `refused`, `no_answer`, `intercepted`, `not_applicable` or `error`.",
    ),
    field("attempts[].layer", "string?", "Where it was stopped."),
    field("attempts[].errno", "string?", "The error, where it was refused."),
    field("attempts[].detail", "string", "The result, in words."),
    field("attempts[].milliseconds", "number", "How long it took."),
];

const PROBE_LIST: &[Field] = &[
    field("name", "string", "Its name for `--only`."),
    field("families", "list", "The families that it is tried in."),
    field("families[]", "string", "`IPv4` or `IPv6`."),
    field("needs", "string", "What it takes to try it."),
    field("what", "string", "What it does."),
    field("kinds", "list", "The kinds of bypass that it is of."),
    field("kinds[]", "string", "A kind."),
];

const PROBE_CANARY: &[Field] = &[
    field("time", "string", "When it arrived."),
    field("arrived", "string", "The attempt's name with its family."),
    field("probe", "string", "The token of the run that it is of."),
    field("from", "string", "Where it came from."),
    field("protocol", "string", "By which protocol."),
    field("port", "number?", "At which port of the canary."),
];

const UPGRADE: &[Field] = &[
    field("pid", "number", "The process that has taken over."),
    field("version", "string", "Its version."),
    field("replaced", "number", "The process that it has taken over from."),
    field("drain_seconds", "number", "How long that one may go on with what runs."),
];

const VERSION: &[Field] = &[
    field("version", "string", "The agent's version."),
    field("commit", "string?", "The commit that it was built from."),
    field("target", "string", "Architecture and system."),
    field("profile", "string", "`debug` or `release`."),
    field("ebpf_compiler", "string", "What the eBPF programs were built with."),
    field(
        "map_abi",
        "number",
        "The layout of the maps. Agents of one layout take over from each other without a gap.",
    ),
    field("kernel", "string", "The running kernel's release."),
    field("minimum_kernel", "string", "The oldest kernel that is accepted."),
];
