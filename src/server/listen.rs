//! Binding the data listeners.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

const BACKLOG: i32 = 1024;

/// Why a listener could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl BindError {
    /// Whether somebody else has the port.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

/// One set of listeners per worker, all on the same addresses.
#[derive(Debug)]
pub struct Bound {
    /// Where they listen; port 0 replaced by the one that was picked.
    pub addresses: Vec<SocketAddr>,
    /// For each worker its listeners.
    pub listeners: Vec<Vec<TcpListener>>,
    /// Addresses that could not be had and are not needed.
    pub missing: Vec<BindError>,
}

/// Binds `addresses` for `workers`. The first address is needed; `[::1]` beside it is not (OPS 2).
///
/// Each address is probed without `SO_REUSEPORT` first, so that a port in use is an error and not a share.
///
/// # Errors
/// When a needed address cannot be had.
pub fn bind(addresses: &[SocketAddr], workers: usize) -> Result<Bound, BindError> {
    let mut bound = Bound {
        addresses: Vec::new(),
        listeners: Vec::new(),
        missing: Vec::new(),
    };
    bound.listeners.resize_with(workers, Vec::new);
    for (at, &address) in addresses.iter().enumerate() {
        let optional = at > 0 && address.is_ipv6();
        match bind_one(address, &mut bound.listeners) {
            Ok(local) => bound.addresses.push(local),
            Err(source) if optional => bound.missing.push(BindError { address, source }),
            Err(source) => return Err(BindError { address, source }),
        }
    }
    Ok(bound)
}

fn bind_one(address: SocketAddr, listeners: &mut [Vec<TcpListener>]) -> io::Result<SocketAddr> {
    let probe = socket(address, false)?;
    probe.bind(&address.into())?;
    let local = probe.local_addr()?.as_socket().unwrap_or(address);
    drop(probe);
    let mut sockets = Vec::with_capacity(listeners.len());
    for _ in 0..listeners.len() {
        let socket = socket(local, true)?;
        socket.bind(&local.into())?;
        socket.listen(BACKLOG)?;
        sockets.push(TcpListener::from(socket));
    }
    for (worker, socket) in listeners.iter_mut().zip(sockets) {
        worker.push(socket);
    }
    Ok(local)
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workers_share_one_port() {
        let bound = bind(&[SocketAddr::from(([127, 0, 0, 1], 0))], 3).unwrap();
        assert_eq!(bound.listeners.len(), 3);
        for worker in &bound.listeners {
            assert_eq!(worker[0].local_addr().unwrap(), bound.addresses[0]);
        }
    }

    #[test]
    fn a_port_in_use_is_an_error() {
        let taken = bind(&[SocketAddr::from(([127, 0, 0, 1], 0))], 1).unwrap();
        let error = bind(&taken.addresses, 1).unwrap_err();
        assert!(error.is_in_use(), "{error}");
    }
}
