//! Changes of a document: a merge object (RFC 7386) or a list of steps (RFC 6902).

use gatewright_model::limits;
use gatewright_model::validation::Violations;
use json_patch::PatchOperation;
use serde_json::Value;

use super::Refusal;

/// Steps of one patch; more are a program, not a change.
const STEPS_MAX: usize = 1000;

/// Bytes that the `copy` steps of one patch may add: each can double the document.
const COPIED_BYTES_MAX: usize = 4 << 20;

/// A change of a document.
#[derive(Clone, Debug)]
pub(crate) enum Patch {
    /// Members replace members; `null` removes.
    Merge(Value),
    /// Steps, all of which must succeed.
    Steps(Vec<PatchOperation>),
}

impl Patch {
    /// An object is a merge, an array is a list of steps.
    pub(crate) fn parse(value: Value) -> Result<Self, Violations> {
        match value {
            Value::Object(_) => Ok(Self::Merge(value)),
            Value::Array(steps) if steps.len() > STEPS_MAX => {
                Err(Violations::one("", format!("maximum number of patch steps is {STEPS_MAX}")))
            }
            Value::Array(steps) => steps_from(steps).map(Self::Steps),
            _ => Err(Violations::one("", "value must be an object (merge patch) or an array (JSON patch)")),
        }
    }

    /// The document after the change.
    pub(crate) fn apply(&self, mut document: Value) -> Result<Value, Refusal> {
        match self {
            Self::Merge(patch) => json_patch::merge(&mut document, patch),
            Self::Steps(steps) => {
                let mut copied_bytes = 0;
                for step in steps {
                    must_stay_small(&document, step, &mut copied_bytes)?;
                    let failed = |error: json_patch::PatchError| failed(error.to_string());
                    json_patch::patch(&mut document, std::slice::from_ref(step)).map_err(failed)?;
                }
            }
        }
        Ok(document)
    }
}

fn failed(reason: String) -> Refusal {
    Refusal::PatchFailed { reason }
}

/// Refuses a step that would nest the document too deep or copy too much. Checked before the step and at its place
/// only, so that a patch costs what it changes.
fn must_stay_small(document: &Value, step: &PatchOperation, copied_bytes: &mut usize) -> Result<(), Refusal> {
    let placed = match step {
        PatchOperation::Add(add) => Some(&add.value),
        PatchOperation::Replace(replace) => Some(&replace.value),
        PatchOperation::Move(from_to) => document.pointer(from_to.from.as_str()),
        PatchOperation::Copy(copy) => {
            let source = document.pointer(copy.from.as_str());
            let bytes =
                source.map_or(0, |source| serde_json::to_vec(source).map_or(usize::MAX, |text| text.len()));
            *copied_bytes = copied_bytes.saturating_add(bytes);
            source
        }
        PatchOperation::Remove(_) | PatchOperation::Test(_) => None,
    };
    if *copied_bytes > COPIED_BYTES_MAX {
        return Err(failed(format!("it copies more than {COPIED_BYTES_MAX} bytes")));
    }
    let depth = step.path().as_str().matches('/').count() + placed.map_or(0, json_depth);
    if placed.is_some() && depth > limits::JSON_DEPTH_MAX {
        return Err(failed(format!("the result is nested deeper than {} levels", limits::JSON_DEPTH_MAX)));
    }
    Ok(())
}

fn steps_from(steps: Vec<Value>) -> Result<Vec<PatchOperation>, Violations> {
    let mut violations = Violations::default();
    let mut parsed = Vec::new();
    for (index, step) in steps.into_iter().enumerate() {
        match serde_json::from_value(step) {
            Ok(step) => parsed.push(step),
            Err(error) => violations.add(format!("/{index}"), format!("is no patch step: {error}")),
        }
    }
    violations.into_result()?;
    Ok(parsed)
}

/// How deep a document is nested; a plain value has depth 0.
pub(crate) fn json_depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(json_depth).max().unwrap_or_default(),
        Value::Object(members) => 1 + members.values().map(json_depth).max().unwrap_or_default(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(patch: Value) -> Result<Value, String> {
        let patch = Patch::parse(patch).map_err(|violations| violations.to_string())?;
        patch.apply(json!({"a": 1, "b": {"c": 2}})).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn an_object_merges_and_an_array_is_a_list_of_steps() {
        assert_eq!(patched(json!({"a": null, "b": {"d": 3}})), Ok(json!({"b": {"c": 2, "d": 3}})));
        let steps = json!([{"op": "replace", "path": "/a", "value": 5}, {"op": "remove", "path": "/b/c"}]);
        assert_eq!(patched(steps), Ok(json!({"a": 5, "b": {}})));
    }

    #[test]
    fn a_patch_that_does_not_fit_names_the_step() {
        let missing = patched(json!([{"op": "remove", "path": "/x"}])).unwrap_err();
        assert!(missing.contains("/x"), "{missing}");
        let malformed =
            patched(json!([{"op": "replace", "path": "/a", "value": 1}, {"op": "jump"}])).unwrap_err();
        assert!(malformed.contains("/1"), "{malformed}");
        assert!(patched(json!("text")).is_err());
    }

    #[test]
    fn a_patch_cannot_blow_a_document_up() {
        let deeper = json!({"op": "copy", "from": "/b", "path": "/b/c"});
        let refusal = patched(Value::Array(vec![deeper; 100])).unwrap_err();
        assert!(refusal.contains("deeper than 64"), "{refusal}");
        let wider = |step| json!({"op": "copy", "from": "/b", "path": format!("/c{step}")});
        let grow = |step| json!({"op": "move", "from": format!("/c{step}"), "path": format!("/b/{step}")});
        let steps: Vec<_> = (0..60).flat_map(|step| [wider(step), grow(step)]).collect();
        let refusal = patched(Value::Array(steps)).unwrap_err();
        assert!(refusal.contains("deeper than 64") || refusal.contains("copies more than"), "{refusal}");
        let many = Value::Array(vec![json!({"op": "test", "path": "/a", "value": 1}); STEPS_MAX + 1]);
        assert!(patched(many).is_err());
    }
}
