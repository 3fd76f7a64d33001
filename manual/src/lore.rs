//! What the manual says that no command line knows: files, variables that libraries read, and the programs beside each.

/// A name and what it is.
pub type Entry = (&'static str, &'static str);

/// Of a program.
pub struct Lore {
    pub files: &'static [Entry],
    pub environment: &'static [Entry],
    pub see_also: &'static [&'static str],
}

const RUST_LOG: Entry = ("RUST_LOG", "What is logged, to standard error. Default: info.");
const COLLECTOR: Entry = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "The OTLP collector that spans are sent to, as in http://127.0.0.1:4317. Default: none.",
);
const NOTIFY: Entry = (
    "NOTIFY_SOCKET, WATCHDOG_USEC",
    "Set by systemd: where to tell that the program is ready, what it does, and that it lives.",
);

pub fn of(program: &str) -> Lore {
    match program {
        "klp-coordinator" => Lore {
            files: &[
                (
                    "/etc/klp-farm/coordinator.toml",
                    "The configuration, read if it is there and no other is named.",
                ),
                (
                    "/var/lib/klp-farm",
                    "Database, artifacts, logs, keys and certificates, where data_dir names no other folder.",
                ),
                (
                    "/usr/lib/systemd/system/klp-coordinator.service",
                    "The service, which runs as the user klp-farm.",
                ),
            ],
            environment: &[RUST_LOG, COLLECTOR, NOTIFY],
            see_also: &["klp-farm", "klp-worker", "systemctl"],
        },
        "klp-worker" => Lore {
            files: &[
                (
                    "/etc/klp-farm/worker.toml",
                    "The configuration, read if it is there and no other is named.",
                ),
                (
                    "/var/lib/klp-worker",
                    "The service's data folder: key and certificate, outbox, scratch folders, and kernel trees in trees.",
                ),
                ("/usr/lib/systemd/system/klp-worker.service", "The service."),
            ],
            environment: &[
                ("KLP_FARM_TOKEN", "The token by which enroll asks for a certificate."),
                (
                    "LIBCLANG_PATH",
                    "Where libclang is. Default: the newest of /usr/lib/llvm-*/lib.",
                ),
                RUST_LOG,
                COLLECTOR,
                NOTIFY,
            ],
            see_also: &["klp-farm", "klp-coordinator", "systemctl"],
        },
        _ => Lore {
            files: &[
                (
                    "~/.config/klp-farm/config.toml",
                    "The configuration: coordinator, CA, token, work folder, author.",
                ),
                (
                    "~/.local/share/klp-farm",
                    "The data of klp-farm up, and the kernel trees of this machine in trees.",
                ),
            ],
            environment: &[
                ("KLP_FARM_CONFIG", "Another configuration file."),
                ("KLP_FARM_TOKEN", "The token that says who asks."),
                (
                    "KLP_WORK_DIR",
                    "Where livepatches are written. Default: the current folder.",
                ),
                ("NO_COLOR", "If it is set, nothing is coloured."),
                RUST_LOG,
                COLLECTOR,
            ],
            see_also: &["klp-coordinator", "klp-worker"],
        },
    }
}
