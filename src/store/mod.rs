//! What flagside knows between requests: deployment keys, their standing, and their flags. In memory.
//!
//! Invariants: the flags of a deployment are replaced as a whole, never changed; a key that upstream
//! rejected is out of service until upstream accepts it again; a late acceptance never undoes a later
//! rejection; both tables are bounded and never drop an accepted key.

pub mod deployments;
pub mod featbit;
pub mod flags;
pub mod rejections;

pub use deployments::{Accepted, Deployment, Deployments, Standing};
pub use flags::{Definitions, FlagData, Flags, etag};
pub use rejections::{Rejection, Rejections};
