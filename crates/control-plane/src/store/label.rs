//! Labels in use, for forms that offer them.

use gatewright_model::resource::Labels;

use super::database::{Row, query};
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
    /// Every set of labels that some object of this kind has, in any group.
    pub(crate) async fn label_list(&mut self, kind: LabelledKind) -> Result<Vec<Labels>, StoreError> {
        let of_objects = |kind: ObjectKind| {
            query("SELECT DISTINCT labels FROM group_object WHERE kind = $1 AND labels <> '{}'")
                .bind(kind.name())
        };
        let sets = match kind {
            LabelledKind::GatewayGroup => {
                query("SELECT DISTINCT labels FROM gateway_group WHERE labels <> '{}'")
            }
            LabelledKind::Consumer => of_objects(ObjectKind::Consumer),
            LabelledKind::Ssl => of_objects(ObjectKind::Ssl),
            LabelledKind::Service => query(
                "SELECT labels FROM service_template WHERE labels <> '{}' \
                 UNION SELECT labels FROM published_service WHERE labels <> '{}'",
            ),
            LabelledKind::Route => query(
                "SELECT labels FROM route_template WHERE labels <> '{}' \
                 UNION SELECT labels FROM group_route WHERE labels <> '{}'",
            ),
        };
        let rows = self.tx.rows(sets).await?;
        rows.iter().map(|row: &Row| row.json("labels")).collect()
    }
}
