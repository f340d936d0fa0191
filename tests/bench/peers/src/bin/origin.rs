//! `origin PORT VARDATA FLAGS`: stands in for upstream. It counts what reaches it, which is how a run proves
//! its hits, and gives no two users the same body, so that no cache can share one.
//!
//! `GET /count` answers the number of vardata requests so far, without being counted.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::rc::Rc;

use bytes::Bytes;
use flagside_bench_peers::{json, port_and_files, serve};
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, HeaderValue};

/// Where 16 hexadecimal digits of a body depend on the request.
const MARK: &[u8] = b"0123456789abcdef";

fn main() {
    let (port, files) = port_and_files();
    let [vardata, flags] = <[Bytes; 2]>::try_from(files).expect("VARDATA FLAGS");
    let mark = vardata.windows(MARK.len()).position(|window| window == MARK);
    let mark = mark.expect("0123456789abcdef in VARDATA");
    let asked = Rc::new(Cell::new(0u64));
    serve(port, move |request| {
        let (vardata, flags, asked) = (vardata.clone(), flags.clone(), Rc::clone(&asked));
        async move {
            let body = match request.uri().path() {
                "/count" => Bytes::from(asked.get().to_string()),
                "/v1/flags" | "/sdk/v2/flags" => flags,
                _ => {
                    asked.set(asked.get() + 1);
                    let mut body = vardata.to_vec();
                    let digits = format!("{:016x}", fingerprint(request).await);
                    body[mark..mark + MARK.len()].copy_from_slice(digits.as_bytes());
                    body.into()
                }
            };
            let mut response = json(body);
            response
                .headers_mut()
                .insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
            response
        }
    })
}

/// A number that differs between users, wherever the request has the user.
async fn fingerprint(request: Request<Incoming>) -> u64 {
    let mut hasher = DefaultHasher::new();
    request.uri().query().hash(&mut hasher);
    request.headers().get("x-amp-exp-user").hash(&mut hasher);
    if let Ok(body) = request.into_body().collect().await {
        body.to_bytes().hash(&mut hasher);
    }
    hasher.finish()
}
