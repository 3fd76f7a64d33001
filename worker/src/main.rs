//! placeholder: only `tree` until the worker proper is merged
use clap::Parser;

#[derive(Parser)]
#[command(name = "klp-worker")]
enum Cli {
    /// Manage the kernel trees of this worker
    Tree(klp_worker::tree_cli::TreeArgs),
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let Cli::Tree(args) = Cli::parse();
    match klp_worker::tree_cli::run(args).await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
