//! What fuzz targets ask for.

use klp_proto::v1::Assignment;

/// Reads what a coordinator assigned.
pub fn assignment(wire: Assignment) {
    let _ = super::parse(wire);
}
