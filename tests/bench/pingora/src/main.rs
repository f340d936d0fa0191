//! `flagside-bench-pingora PORT ORIGIN_PORT`: a caching proxy on one thread, as Pingora's documentation builds it.
//! The key is path, query, `Authorization` and `X-Amp-Exp-User`; stored answers are fresh for an hour.

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use pingora_cache::cache_control::CacheControl;
use pingora_cache::eviction::lru::Manager;
use pingora_cache::filters::resp_cacheable;
use pingora_cache::lock::{CacheKeyLockImpl, CacheLock};
use pingora_cache::{CacheKey, CacheMetaDefaults, MemCache, RespCacheable};
use pingora_core::Result;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::ResponseHeader;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

const HOUR: Duration = Duration::from_secs(3_600);
const DEFAULTS: CacheMetaDefaults = CacheMetaDefaults::new(|_| Some(HOUR), 60, 60);

static STORE: LazyLock<MemCache> = LazyLock::new(MemCache::new);
static EVICTION: LazyLock<Manager<16>> = LazyLock::new(|| Manager::with_capacity(512 << 20, 8_192));
static LOCK: LazyLock<Box<CacheKeyLockImpl>> = LazyLock::new(|| CacheLock::new_boxed(Duration::from_secs(2)));

struct Caching {
    origin: u16,
}

#[async_trait]
impl ProxyHttp for Caching {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        let origin = HttpPeer::new(("127.0.0.1", self.origin), false, String::new());
        Ok(Box::new(origin))
    }

    fn request_cache_filter(&self, session: &mut Session, (): &mut ()) -> Result<()> {
        session
            .cache
            .enable(&*STORE, Some(&*EVICTION), None, Some(LOCK.as_ref()), None);
        Ok(())
    }

    fn cache_key_callback(&self, session: &Session, (): &mut ()) -> Result<CacheKey> {
        let request = session.req_header();
        let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
        let mut key = target.as_bytes().to_vec();
        for name in ["authorization", "x-amp-exp-user"] {
            key.push(0);
            if let Some(value) = request.headers.get(name) {
                key.extend_from_slice(value.as_bytes());
            }
        }
        Ok(CacheKey::new(key, String::new()))
    }

    fn response_cache_filter(
        &self,
        _: &Session,
        response: &ResponseHeader,
        (): &mut (),
    ) -> Result<RespCacheable> {
        let control = CacheControl::from_resp_headers(response);
        Ok(resp_cacheable(
            control.as_ref(),
            response.clone(),
            false,
            &DEFAULTS,
        ))
    }
}

fn main() {
    let ports: Vec<u16> = std::env::args()
        .skip(1)
        .filter_map(|port| port.parse().ok())
        .collect();
    let [port, origin] = ports[..] else {
        panic!("PORT ORIGIN_PORT");
    };
    let settings = ServerConf {
        threads: 1,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, settings);
    server.bootstrap();
    let mut proxy = http_proxy_service(&server.configuration, Caching { origin });
    proxy.add_tcp(&format!("127.0.0.1:{port}"));
    server.add_service(proxy);
    server.run_forever()
}
