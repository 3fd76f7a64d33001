//! What a running program takes over of a configuration that was read again, and what waits for a restart.

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Table;

use crate::file::Problem;

/// A configuration that was read again, beside the one that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload<T> {
    /// Those in force, with what is taken over.
    pub settings: T,
    /// What is taken over.
    pub applied: Vec<String>,
    /// What has changed and counts after a restart.
    pub waiting: Vec<String>,
}

impl<T: Serialize + DeserializeOwned> Reload<T> {
    /// Takes over what of `fresh` differs and is among `reloadable`.
    ///
    /// # Errors
    /// A value has no TOML: a path that is no UTF-8.
    pub fn new(current: &T, fresh: &T, reloadable: &[&str]) -> Result<Self, Problem> {
        let unfit = |error: toml::ser::Error| Problem::Unfit(error.to_string());
        let (mut table, mut fresh) = (
            Table::try_from(current).map_err(unfit)?,
            Table::try_from(fresh).map_err(unfit)?,
        );
        let mut changed: Vec<String> = table.keys().chain(fresh.keys()).cloned().collect();
        changed.sort_unstable();
        changed.dedup();
        changed.retain(|key| table.get(key) != fresh.get(key));
        let (applied, waiting) = changed
            .into_iter()
            .partition::<Vec<_>, _>(|key| reloadable.contains(&key.as_str()));
        for key in &applied {
            match fresh.remove(key) {
                Some(value) => drop(table.insert(key.clone(), value)),
                None => drop(table.remove(key)),
            }
        }
        Ok(Self {
            settings: table.try_into().map_err(|error| Problem::Unfit(error.to_string()))?,
            applied,
            waiting,
        })
    }

    /// For the log: what has come of it.
    pub fn summary(&self) -> String {
        match (&self.applied[..], &self.waiting[..]) {
            ([], []) => "nothing has changed".to_owned(),
            (applied, []) => format!("in force now: {}", applied.join(", ")),
            ([], waiting) => format!("in force only after a restart: {}", waiting.join(", ")),
            (applied, waiting) => format!(
                "in force now: {}; only after a restart: {}",
                applied.join(", "),
                waiting.join(", ")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Settings {
        listen: String,
        slots: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        catalog: Option<String>,
    }

    #[test]
    fn what_can_be_is_taken_over_and_the_rest_is_named() {
        let current = Settings {
            listen: "a".to_owned(),
            slots: 1,
            catalog: Some("c".to_owned()),
        };
        let fresh = Settings {
            listen: "b".to_owned(),
            slots: 2,
            catalog: None,
        };
        let reload = Reload::new(&current, &fresh, &["slots", "catalog"]).unwrap();
        assert_eq!(
            reload.settings,
            Settings {
                listen: "a".to_owned(),
                ..fresh
            }
        );
        assert_eq!(
            reload.summary(),
            "in force now: catalog, slots; only after a restart: listen"
        );
        let same = Reload::new(&current, &current, &["slots"]).unwrap();
        assert_eq!((same.settings, same.applied.len()), (current, 0));
    }
}
