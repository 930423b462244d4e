//! `gatewright store`: backs a store up, or moves it to another database.

use gatewright_control_plane::{database, upkeep};

use super::Failure;
use crate::announce;
use crate::arguments::{Store, StoreCommand};

/// Does what is asked and says what was done.
pub(crate) async fn run(arguments: Store) -> Result<(), Failure> {
    match arguments.command {
        StoreCommand::Backup { data, database: chosen, to } => {
            let database = database(&data.data_dir, chosen.database_url.as_ref());
            upkeep::store_backup(&database, &to).await?;
            announce::listener("backed up", format_args!("{database} to {}", to.display()));
        }
        StoreCommand::Migrate { from, to } => {
            let rows = Box::pin(upkeep::store_migrate(&from, &to)).await?;
            announce::listener("migrated", format_args!("{rows} rows from {from} to {to}"));
        }
        StoreCommand::RaiseEpoch { data, database: chosen } => {
            let database = database(&data.data_dir, chosen.database_url.as_ref());
            upkeep::store_epoch_raise(&database).await?;
            announce::listener("epoch", format_args!("raised; gateways go back to what {database} says"));
        }
    }
    Ok(())
}
