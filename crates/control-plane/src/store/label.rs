//! Labels in use, for forms that offer them.

use gatewright_model::resource::Labels;
use gatewright_model::resource::service::ServiceKind;

use super::database::query;
use super::object_count::PUBLISHED_SERVICE;
use super::route::route_noun;
use super::{ObjectKind, Reading, StoreError};

/// Kinds of objects whose labels can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LabelledKind {
    GatewayGroup,
    Consumer,
    Ssl,
    Service,
    Route,
}

impl Reading {
    /// Every label that some object of this kind has, in any group.
    pub(crate) async fn label_list(
        &mut self,
        kind: LabelledKind,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let nouns = match kind {
            LabelledKind::GatewayGroup => return self.labels_of_groups().await,
            LabelledKind::Consumer => [ObjectKind::Consumer.name(); 2],
            LabelledKind::Ssl => [ObjectKind::Ssl.name(); 2],
            LabelledKind::Service => [PUBLISHED_SERVICE, "service_template"],
            LabelledKind::Route => [route_noun(ServiceKind::Http); 2],
        };
        let labels = query("SELECT DISTINCT \"key\", value FROM label WHERE noun IN ($1, $2)");
        let rows = self.tx.rows(labels.bind(nouns[0]).bind(nouns[1])).await?;
        rows.iter().map(|row| Ok((row.text("key")?, row.text("value")?))).collect()
    }

    /// The same of gateway groups; there are few.
    async fn labels_of_groups(&mut self) -> Result<Vec<(String, String)>, StoreError> {
        let sets = query("SELECT DISTINCT labels FROM gateway_group WHERE labels <> '{}'");
        let rows = self.tx.rows(sets).await?;
        let sets: Vec<Labels> = rows.iter().map(|row| row.json("labels")).collect::<Result<_, _>>()?;
        Ok(sets.into_iter().flatten().collect())
    }
}
