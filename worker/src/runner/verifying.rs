//! A verification: are the symbols that other architectures' sources need on this one?

use klp_livepatch::outcome::{Ending, Failure};
use klp_livepatch::report::Report;
use klp_livepatch::words::amount;

use super::{Context, Job, aside};
use crate::check;
use crate::outbox::Product;
use crate::trees::Tree;

/// Succeeds whatever is missing: that is what it was asked for.
pub(super) async fn run(tree: Tree, job: Job, context: &Context) -> Result<Product, Failure> {
    context.progress(&format!(
        "looking for {}",
        amount(job.wanted.len(), "symbol", "symbols")
    ));
    let wanted = job.wanted;
    let report = aside("verification", move || check::verify(&tree, &wanted)).await?;
    for symbol in report.symbols.iter().filter(|s| s.found_in.is_none()) {
        context
            .log
            .line(&format!("missing: {} in {}", symbol.symbol, symbol.object));
    }
    Ok(Product {
        ending: Ending::Succeeded,
        report: Some(Report::Verify(report)),
        files: Vec::new(),
    })
}
