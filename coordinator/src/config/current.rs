//! The settings in force, which a reload replaces.

use std::sync::{Arc, PoisonError, RwLock};

use klp_settings::Reload;

use super::{Config, ConfigError};

/// What a running coordinator takes over of a configuration that is read again. Everything here is asked each time that it
/// counts; the rest is built into what was started, or was told to workers.
pub const RELOADABLE: &[&str] = &[
    "backoff_max_ms",
    "backoff_ms",
    "branches",
    "death_limit",
    "fault_limit",
    "gc_period_ms",
    "http_names",
    "match_period_ms",
    "max_open_livepatches",
    "max_platforms",
    "memory_limit",
    "quarantine_after",
    "quarantine_max_ms",
    "quarantine_ms",
    "retain_audit_days",
    "retain_ended_days",
    "time_limit_ms",
    "tryout_ms",
    "worker_certificate_ms",
];

/// Clones see the same settings. Whoever does one thing by several settings asks once.
#[derive(Clone, Debug)]
pub struct Current(Arc<RwLock<Arc<Config>>>);

impl Current {
    pub fn new(config: Config) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(config))))
    }

    pub fn now(&self) -> Arc<Config> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over what of `fresh` can be.
    ///
    /// # Errors
    /// `fresh`, or what is in force together with what is taken over of it, is not valid; nothing is taken over then.
    pub fn reload(&self, fresh: &Config) -> Result<Reload<Config>, ConfigError> {
        fresh.validate()?;
        let reload = Reload::new(&*self.now(), fresh, RELOADABLE)?;
        reload.settings.validate()?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(reload.settings.clone());
        Ok(reload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_is_in_force_at_once_for_whoever_holds_the_settings() {
        let current = Current::new(Config::default());
        let seen_elsewhere = current.clone();
        let fresh = Config {
            fault_limit: 9,
            lease_ms: 60_000,
            ..Config::default()
        };
        let reload = current.reload(&fresh).unwrap();
        assert_eq!(
            (&reload.applied[..], &reload.waiting[..]),
            (&["fault_limit".to_owned()][..], &["lease_ms".to_owned()][..])
        );
        let now = seen_elsewhere.now();
        assert_eq!((now.fault_limit, now.lease_ms), (9, Config::default().lease_ms));
    }

    #[test]
    fn of_a_bad_configuration_nothing_is_taken_over() {
        let current = Current::new(Config::default());
        let bad = Config {
            fault_limit: 0,
            death_limit: 7,
            ..Config::default()
        };
        assert!(current.reload(&bad).is_err());
        assert_eq!(*current.now(), Config::default());
    }

    #[test]
    fn only_settings_are_reloadable() {
        let keys = klp_settings::keys::<Config>();
        for name in RELOADABLE {
            assert!(keys.iter().any(|key| key == name), "{name}");
        }
    }
}
