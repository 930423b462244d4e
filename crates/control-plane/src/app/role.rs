//! Roles and what they allow. There is one, built in; policies and roles of one's own will be kept here.

use super::{Action, App, Caller, Refusal};

impl App {
    /// Refuses unless the caller may look at roles.
    pub(crate) fn role_list(&self, caller: &Caller) -> Result<(), Refusal> {
        caller.must(Action::GetRole, "*")
    }

    /// Everything that may be allowed, or refused.
    pub(crate) fn permission_list(&self, caller: &Caller) -> Result<&'static [Action], Refusal> {
        caller.must(Action::GetPermission, "*")?;
        Ok(&Action::ALL)
    }
}
