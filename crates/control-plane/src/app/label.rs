//! Labels in use.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, App, Caller, Refusal};
use crate::store::LabelledKind;

impl App {
    /// Every label key that objects of this kind use, with its values.
    pub(crate) async fn label_list(
        &self,
        caller: &Caller,
        kind: LabelledKind,
    ) -> Result<BTreeMap<String, BTreeSet<String>>, Refusal> {
        let action = match kind {
            LabelledKind::GatewayGroup => Action::GetGatewayGroup,
            LabelledKind::Consumer => Action::GetConsumer,
            LabelledKind::Ssl => Action::GetCertificate,
            LabelledKind::Service | LabelledKind::Route => Action::GetPublishedService,
        };
        caller.must(action, "*")?;
        let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (key, value) in self.store().read().await?.label_list(kind).await? {
            values.entry(key).or_default().insert(value);
        }
        Ok(values)
    }
}
