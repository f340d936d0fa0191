//! Adding the sidecar to pods: in the text of manifests (`flagside inject`) and at admission (`flagside injector`).
//!
//! Both ask [`pod::plan`] what is to become of a pod, with the same [`Template`] and the same annotations (OPS 5).
//! The answer is a list of [`edit::Edit`]s, which never remove or rewrite anything. A pod that has the sidecar is
//! left as it is, so that doing it twice is doing it once.

pub mod annotations;
pub mod certificate;
pub mod edit;
mod emit;
pub mod load;
pub mod manifest;
pub mod pod;
pub mod review;
pub mod server;
pub mod skip;
pub mod template;
mod text;
mod yaml;

pub use template::Template;
pub use yaml::Problem;
