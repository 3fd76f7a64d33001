//! What an operator does to the data: see it checked, copied, and cleared of what nobody needs.
