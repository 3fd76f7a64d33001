//! What a caller may do, in one word.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Roles are ordered, each may do what a lesser one may; only `worker` stands apart: it works, and does nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Submits livepatches and changes its mind about them.
    Submitter,
    /// Says which workers are used, and what goes first.
    Operator,
    /// Says who may do what.
    Admin,
    /// Runs tasks. By certificate only, never by a token.
    Worker,
}

impl Role {
    /// The lesser first; without `worker`.
    pub const ORDERED: [Role; 4] = [Role::Viewer, Role::Submitter, Role::Operator, Role::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Submitter => "submitter",
            Role::Operator => "operator",
            Role::Admin => "admin",
            Role::Worker => "worker",
        }
    }

    /// Whether whoever has this role may do what needs that one.
    pub fn covers(self, needed: Role) -> bool {
        match (self.rank(), needed.rank()) {
            (Some(own), Some(needed)) => own >= needed,
            _ => self == needed,
        }
    }

    fn rank(self) -> Option<usize> {
        Self::ORDERED.iter().position(|role| *role == self)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = Self::ORDERED.into_iter().chain([Role::Worker]);
        let mut known = all.filter(|role| role.as_str() == text);
        let unknown = || format!("`{text}` is no role; there are viewer, submitter, operator, admin and worker");
        known.next().ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_covers_itself_and_the_lesser_ones_and_a_worker_is_neither() {
        for (i, own) in Role::ORDERED.into_iter().enumerate() {
            for (j, needed) in Role::ORDERED.into_iter().enumerate() {
                assert_eq!(own.covers(needed), i >= j, "{own} for {needed}");
            }
            assert!(!own.covers(Role::Worker) && !Role::Worker.covers(own), "{own}");
            assert_eq!(own.as_str().parse(), Ok(own));
        }
        assert!(Role::Worker.covers(Role::Worker));
        assert!("root".parse::<Role>().unwrap_err().contains("viewer"));
    }
}
