//! `bare PORT FILE`: the line that flagside is held against. Hyper on one thread gives every request the
//! same answer from memory: no routing, no look-up, no header of its own, no counter, no timer.

use flagside_bench_peers::{json, port_and_files, serve};

fn main() {
    let (port, files) = port_and_files();
    let body = files.into_iter().next().expect("FILE");
    serve(port, move |_| std::future::ready(json(body.clone())))
}
