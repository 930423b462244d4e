//! Changes of a document: a merge object (RFC 7386) or a list of steps (RFC 6902).

use gatewright_model::limits;
use gatewright_model::validation::Violations;
use json_patch::PatchOperation;
use serde_json::Value;

use super::Refusal;

/// Steps of one patch; more are a program, not a change.
const STEPS_MAX: usize = 1000;

/// Bytes a patched document may reach: `copy` steps can double it each time.
const PATCHED_BYTES_MAX: usize = 4 << 20;

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
                for step in steps {
                    let failed =
                        |error: json_patch::PatchError| Refusal::PatchFailed { reason: error.to_string() };
                    json_patch::patch(&mut document, std::slice::from_ref(step)).map_err(failed)?;
                    if matches!(step, PatchOperation::Copy(_)) {
                        must_be_small(&document)?;
                    }
                }
            }
        }
        if json_depth(&document) > limits::JSON_DEPTH_MAX {
            let reason = format!("the result is nested deeper than {} levels", limits::JSON_DEPTH_MAX);
            return Err(Refusal::PatchFailed { reason });
        }
        Ok(document)
    }
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

fn must_be_small(document: &Value) -> Result<(), Refusal> {
    let bytes = serde_json::to_vec(document).map_or(usize::MAX, |text| text.len());
    if bytes <= PATCHED_BYTES_MAX {
        return Ok(());
    }
    Err(Refusal::PatchFailed { reason: format!("the result is larger than {PATCHED_BYTES_MAX} bytes") })
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
        let double = json!({"op": "copy", "from": "/b", "path": "/b/c"});
        let refusal = patched(Value::Array(vec![double; 60])).unwrap_err();
        assert!(refusal.contains("the result is"), "{refusal}");
        let many = Value::Array(vec![json!({"op": "test", "path": "/a", "value": 1}); STEPS_MAX + 1]);
        assert!(patched(many).is_err());
    }
}
