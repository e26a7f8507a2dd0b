//! The double's writes: server-side apply to a status, and Events. As a real server answers them, but simpler:
//! who owns which field is not kept, so an apply never conflicts and gives nothing up.

use serde_json::{Value, json};

use super::store::{Query, Store};

/// An answer that is no object: its code, reason, message and details.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refused {
    /// The HTTP status.
    pub(super) code: u16,
    /// The reason.
    pub(super) reason: &'static str,
    /// A sentence.
    pub(super) message: String,
    /// Details, with causes where there are some.
    pub(super) details: Option<Value>,
}

/// What is missing or wrong in a field.
type Cause = (&'static str, &'static str, String);

const REQUIRED: &str = "FieldValueRequired";
const INVALID: &str = "FieldValueInvalid";

fn invalid(kind: &str, group: &str, name: &str, causes: &[Cause]) -> Refused {
    let texts: Vec<_> =
        causes.iter().map(|(_, message, field)| format!("{field}: {message}")).collect();
    let text = match texts.as_slice() {
        [only] => only.clone(),
        all => format!("[{}]", all.join(", ")),
    };
    let full = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
    let list: Vec<Value> = causes
        .iter()
        .map(|(reason, message, field)| json!({"reason": reason, "message": message, "field": field}))
        .collect();
    let mut details = json!({"name": name, "kind": kind, "causes": list});
    if !group.is_empty() {
        details["group"] = json!(group);
    }
    Refused {
        code: 422,
        reason: "Invalid",
        message: format!("{full} {name:?} is invalid: {text}"),
        details: Some(details),
    }
}

/// Server-side apply to an object's status. The object as it is then.
///
/// # Errors
/// As a real server's.
pub(super) fn apply_status(
    store: &mut Store,
    query: &Query,
    name: &str,
    manager: Option<&str>,
    applied: &Value,
) -> Result<Value, Refused> {
    if manager.is_none_or(str::is_empty) {
        let message = "Required value: is required for apply patch";
        let cause = (REQUIRED, message, "fieldManager".to_owned());
        let mut refused = invalid("PatchOptions", "meta.k8s.io", "", &[cause]);
        if let Some(details) = refused.details.as_mut().and_then(Value::as_object_mut) {
            details.remove("name");
        }
        return Err(refused);
    }
    let (group, kind) = store.names(query).unwrap_or_default();
    let Some(mut object) = store.get(query, name) else {
        let plural = &query.plural;
        let details = json!({"name": name, "group": group, "kind": plural});
        return Err(Refused {
            code: 404,
            reason: "NotFound",
            message: format!("{plural}.{group} {name:?} not found"),
            details: Some(details),
        });
    };
    let wanted = &applied["metadata"]["resourceVersion"];
    if wanted.is_string() && *wanted != object["metadata"]["resourceVersion"] {
        let message =
            "the object has been modified; please apply your changes to the latest version";
        return Err(Refused {
            code: 409,
            reason: "Conflict",
            message: format!("Operation cannot be fulfilled on {kind} {name:?}: {message}"),
            details: None,
        });
    }
    let conditions = applied["status"]["conditions"].as_array().cloned().unwrap_or_default();
    // Those of the Gateway API's routes are in a list that is replaced as a whole. That of a Gateway's listeners has
    // one writer here.
    let lists = ["parents", "listeners"].map(|key| (key, applied["status"][key].as_array()));
    let nested = lists.iter().filter_map(|(_, list)| *list).flatten();
    let nested = nested.filter_map(|entry| entry["conditions"].as_array()).flatten();
    let mut causes: Vec<Cause> = Vec::new();
    for (index, listener) in lists[1].1.into_iter().flatten().enumerate() {
        let required = [
            ("name", listener["name"].is_string()),
            ("attachedRoutes", listener["attachedRoutes"].is_u64()),
            ("supportedKinds", listener["supportedKinds"].is_array()),
            ("conditions", listener["conditions"].is_array()),
        ];
        for (field, _) in required.into_iter().filter(|(_, is_there)| !is_there) {
            let path = format!("status.listeners[{index}].{field}");
            causes.push((REQUIRED, "Required value", path));
        }
    }
    for (index, condition) in conditions.iter().chain(nested).enumerate() {
        for field in ["type", "status", "lastTransitionTime", "reason", "message"] {
            if !condition[field].is_string() {
                let path = format!("status.conditions[{index}].{field}");
                causes.push((REQUIRED, "Required value", path));
            }
        }
    }
    if !causes.is_empty() {
        return Err(invalid(&kind, &group, name, &causes));
    }
    let before = object["status"].clone();
    let mut all = before["conditions"].as_array().cloned().unwrap_or_default();
    for condition in conditions {
        match all.iter_mut().find(|old| old["type"] == condition["type"]) {
            Some(old) => *old = condition,
            None => all.push(condition),
        }
    }
    if !all.is_empty() {
        object["status"]["conditions"] = json!(all);
    }
    for (key, list) in lists {
        if let Some(list) = list {
            object["status"][key] = json!(list);
        }
    }
    if object["status"] == before {
        return Ok(object);
    }
    store.set_status(query, name, object["status"].clone());
    Ok(store.get(query, name).unwrap_or(object))
}

/// Changes an object by a JSON Patch (RFC 6902) of tests and removals.
///
/// # Errors
/// As a real server's.
pub(super) fn patch(
    store: &mut Store,
    query: &Query,
    name: &str,
    patch: &Value,
) -> Result<Value, Refused> {
    let mut object = store.get(query, name).ok_or_else(|| absent(query, name))?;
    let rejected = || Refused {
        code: 422,
        reason: "Invalid",
        message: "the server rejected our request due to an error in our request".into(),
        details: Some(json!({})),
    };
    for change in patch.as_array().into_iter().flatten() {
        let path = change["path"].as_str().unwrap_or_default();
        match change["op"].as_str() {
            Some("test") if object.pointer(path) == Some(&change["value"]) => {}
            Some("replace") => {
                *object.pointer_mut(path).ok_or_else(rejected)? = change["value"].clone()
            }
            Some("remove") => {
                let (above, last) = path.rsplit_once('/').ok_or_else(rejected)?;
                let gone = match object.pointer_mut(above).ok_or_else(rejected)? {
                    Value::Array(list) => {
                        let index = last.parse().ok().filter(|index| *index < list.len());
                        index.map(|index: usize| list.remove(index))
                    }
                    Value::Object(fields) => fields.remove(last),
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
                };
                gone.ok_or_else(rejected)?;
            }
            _ => return Err(rejected()),
        }
    }
    if store.put(object).is_err() {
        return Err(rejected());
    }
    store.get(query, name).ok_or_else(rejected)
}

fn absent(query: &Query, name: &str) -> Refused {
    let plural = &query.plural;
    Refused {
        code: 404,
        reason: "NotFound",
        message: format!("{plural} {name:?} not found"),
        details: Some(json!({"name": name, "kind": plural})),
    }
}

/// Makes an object.
///
/// # Errors
/// As a real server's.
pub(super) fn create(
    store: &mut Store,
    query: &Query,
    mut object: Value,
) -> Result<Value, Refused> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if let Some(namespace) = &query.namespace {
        object["metadata"]["namespace"] = json!(namespace);
    }
    if store.get(query, &name).is_some() {
        let plural = &query.plural;
        return Err(Refused {
            code: 409,
            reason: "AlreadyExists",
            message: format!("{plural} {name:?} already exists"),
            details: Some(json!({"name": name, "kind": plural})),
        });
    }
    let made = store.put(object).ok().and_then(|()| store.get(query, &name));
    made.ok_or_else(|| Refused {
        code: 400,
        reason: "BadRequest",
        message: "the object provided is unrecognized".into(),
        details: None,
    })
}

/// Deletes an object.
///
/// # Errors
/// As a real server's.
pub(super) fn delete(store: &mut Store, query: &Query, name: &str) -> Result<Value, Refused> {
    let object = store.get(query, name).ok_or_else(|| absent(query, name))?;
    let namespace = query.namespace.clone().unwrap_or_default();
    store.remove(&query.plural, &namespace, name);
    let uid = &object["metadata"]["uid"];
    Ok(json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": {"name": name, "kind": query.plural, "uid": uid},
    }))
}

/// Makes an Event.
///
/// # Errors
/// As a real server's.
pub(super) fn create_event(
    store: &mut Store,
    query: &Query,
    mut event: Value,
) -> Result<Value, Refused> {
    let namespace = query.namespace.clone().unwrap_or_default();
    let name = event["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut causes: Vec<Cause> = Vec::new();
    if event["regarding"]["namespace"].as_str().unwrap_or_default() != namespace {
        let message = "Invalid value: \"\": does not match event.namespace";
        causes.push((INVALID, message, "involvedObject.namespace".into()));
    }
    if !event["eventTime"].as_str().is_some_and(is_micro_time) {
        causes.push((REQUIRED, "Required value", "eventTime".into()));
    }
    if !matches!(event["type"].as_str(), Some("Normal" | "Warning")) {
        causes.push((INVALID, "Invalid value: \"\": has invalid value: ", "type".into()));
    }
    if event["note"].as_str().is_some_and(|note| note.len() > 1024) {
        let message = "Invalid value: \"\": can have at most 1024 characters";
        causes.push((INVALID, message, "message".into()));
    }
    if !causes.is_empty() {
        return Err(invalid("Event", "", &name, &causes));
    }
    if store.get(query, &name).is_some() {
        let plural = &query.plural;
        return Err(Refused {
            code: 409,
            reason: "AlreadyExists",
            message: format!("{plural} {name:?} already exists"),
            details: Some(json!({"name": name, "kind": plural})),
        });
    }
    event["metadata"]["namespace"] = json!(namespace);
    event["kind"] = json!("Event");
    if store.put(event).is_err() {
        return Err(invalid("Event", "", &name, &[(REQUIRED, "Required value", "name".into())]));
    }
    Ok(store.get(query, &name).unwrap_or_default())
}

/// `2026-01-01T00:00:00.000000Z`.
fn is_micro_time(text: &str) -> bool {
    text.split_once('.').is_some_and(|(_, fraction)| fraction.len() == 7 && fraction.ends_with('Z'))
}
