//! A FeatBit SDK's stream, as seen from the SDK.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime};

use flagside::evaluate::featbit::token;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::client;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket};

use super::wait::PATIENCE;

/// An open stream.
#[derive(Debug)]
pub struct Stream {
    socket: WebSocket<TcpStream>,
}

impl Stream {
    /// Opens a stream of a kind with a new token of this secret.
    pub fn open(address: SocketAddr, kind: &str, secret: &str) -> Self {
        Self::open_aged(address, kind, secret, 0)
    }

    /// The same with a token that was made so many seconds ago; negative: in the future.
    pub fn open_aged(address: SocketAddr, kind: &str, secret: &str, seconds: i64) -> Self {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let made = i64::try_from(now.as_millis()).unwrap_or_default() - seconds * 1000;
        let token = token::encode(secret, u64::try_from(made).unwrap_or_default(), 11);
        Self::open_with(address, &format!("type={kind}&token={token}"))
    }

    /// Opens a stream with this query.
    pub fn open_with(address: SocketAddr, query: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the program listens");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("the timeout is not zero");
        let url = format!("ws://{address}/streaming?{query}");
        let (socket, _) = client(url, stream).expect("every stream is upgraded");
        Self { socket }
    }

    /// Sends a message.
    pub fn say(&mut self, message: &Value) {
        // What closes meanwhile is seen when the next message is read.
        let _ = self.socket.send(Message::text(message.to_string()));
    }

    /// The next message that is no pong, or the code with which the stream was closed; 0 = none.
    pub fn next(&mut self) -> Result<Value, u16> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    let message: Value = serde_json::from_str(&text).expect("messages are JSON");
                    if message["messageType"] != "pong" {
                        return Ok(message);
                    }
                }
                Ok(Message::Close(frame)) => return Err(frame.map_or(0, |frame| frame.code.into())),
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("nothing came within {PATIENCE:?}")
                }
                Err(_) => return Err(0),
            }
        }
    }

    /// Asks a server's question and reads the answer.
    pub fn sync(&mut self, timestamp: i64) -> Result<Value, u16> {
        self.say(&json!({"messageType": "data-sync", "data": {"timestamp": timestamp}}));
        self.next()
    }

    /// Asks a client's question and reads the answer.
    pub fn sync_for(&mut self, user: &str, timestamp: i64) -> Result<Value, u16> {
        let user = json!({"keyId": user, "name": user, "customizedProperties": []});
        self.say(&json!({"messageType": "data-sync", "data": {"timestamp": timestamp, "user": user}}));
        self.next()
    }

    /// The code with which the stream is closed, whatever comes before.
    pub fn close_code(&mut self) -> u16 {
        loop {
            if let Err(code) = self.next() {
                return code;
            }
        }
    }

    /// How long it takes until a message comes.
    pub fn time_to_next(&mut self) -> (Duration, Value) {
        let began = std::time::Instant::now();
        let message = self.next().expect("the stream is open");
        (began.elapsed(), message)
    }
}
