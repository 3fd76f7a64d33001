//! What every extraction tool looks like to the worker.

use std::future::Future;
use std::pin::Pin;

use klp_livepatch::Arch;
use klp_livepatch::names::ObjectName;
use klp_livepatch::outcome::Failure;
use klp_livepatch::report::TargetExtraction;
use klp_livepatch::spec::{Backend, Target};

use super::measure::Measured;
use crate::runner::Context;
use crate::trees::Tree;
use crate::trees::overlay::View;

/// A tool and its version, as reports and the fleet list show them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolIdentity {
    pub backend: Backend,
    pub version: String,
}

/// One target to extract.
#[derive(Clone, Copy)]
pub struct ExtractRequest<'a> {
    pub tree: &'a Tree,
    /// The tree's sources with fixes applied; `None`: they are taken as they are.
    pub view: Option<&'a View>,
    pub target: &'a Target,
    /// The object that holds the functions on this codestream and architecture.
    pub object: &'a ObjectName,
    /// Symbols to copy rather than externalize, because the livepatch's other kernels have not all got them.
    pub avoid: &'a [String],
}

/// What an extraction gives: the source, and all that is to be told about it.
#[derive(Clone, Debug)]
pub struct Extracted {
    pub source: String,
    pub report: TargetExtraction,
    pub measured: Measured,
    /// What the tool said and wrote beside the source, as names of artifacts and their contents.
    pub files: Vec<(String, Vec<u8>)>,
}

/// An extraction under way.
pub type Extracting<'a> = Pin<Box<dyn Future<Output = Result<Extracted, Failure>> + Send + 'a>>;

/// An extraction tool that was found to work on this host.
pub trait Extractor: Send + Sync {
    fn identity(&self) -> &ToolIdentity;

    /// Whether the tool can read kernels of this architecture.
    fn supports(&self, arch: Arch) -> bool {
        self.identity().backend.extracts(arch)
    }

    /// Extracts one target into a source and checks that it compiles. A source that does not is no error here: the
    /// report says so.
    fn extract<'a>(&'a self, request: ExtractRequest<'a>, context: &'a Context) -> Extracting<'a>;
}
