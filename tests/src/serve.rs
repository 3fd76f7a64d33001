//! A gRPC service of a test's own, over a real socket.

use std::sync::mpsc;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::server::Router;

/// Its address, and what it is served by as long as that lives.
pub fn serve(router: Router) -> (String, Runtime) {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (sender, address) = mpsc::channel();
    runtime.spawn(async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        sender.send(address).expect("somebody waits for it");
        router.serve_with_incoming(TcpListenerStream::new(listener)).await
    });
    let address = address.recv().expect("it is served");
    (format!("http://{address}"), runtime)
}
