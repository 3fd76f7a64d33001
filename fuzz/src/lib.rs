//! A coordinator for targets that are its peers: real, over real sockets, without TLS, for them to do what they like with.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::OnceLock;

use klp_coordinator::{Config, Coordinator};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub struct Served {
    pub runtime: Runtime,
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    _coordinator: Coordinator,
    _data: TempDir,
}

/// The one of this process, which starts at the first call. A panic anywhere in it ends the process.
pub fn served() -> &'static Served {
    static SERVED: OnceLock<Served> = OnceLock::new();
    SERVED.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let data = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let data = data.expect("a folder for the coordinator");
        let runtime = Runtime::new().expect("a runtime");
        let loopback = "127.0.0.1:0".parse().expect("an address");
        let config = Config {
            listen: loopback,
            http_listen: Some(loopback),
            insecure: true,
            data_dir: data.path().to_owned(),
            ..Config::default()
        };
        let coordinator = runtime
            .block_on(Coordinator::start(config))
            .expect("a coordinator starts");
        Served {
            grpc: coordinator.local_addr(),
            http: coordinator.http_addr().expect("it was asked for HTTP"),
            runtime,
            _coordinator: coordinator,
            _data: data,
        }
    })
}
