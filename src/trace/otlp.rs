//! Spans as OTLP: an `ExportTraceServiceRequest` in protobuf.
//!
//! Eight messages with two dozen fields, and none is ever read: that is less than a code generator and its run-time
//! would bring.

use super::Span;

/// A protobuf message under construction.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }

    fn number(&mut self, field: u64, number: u64) {
        self.varint(field << 3 | VARINT);
        self.varint(number);
    }

    fn fixed64(&mut self, field: u64, number: u64) {
        self.varint(field << 3 | FIXED64);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn fixed32(&mut self, field: u64, number: u32) {
        self.varint(field << 3 | FIXED32);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | BYTES);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u64, message: &Self) {
        self.bytes(field, &message.0);
    }

    /// A `KeyValue`.
    fn attribute(&mut self, field: u64, key: &str, fill: impl FnOnce(&mut Self)) {
        let (mut pair, mut value) = (Self::default(), Self::default());
        fill(&mut value);
        pair.bytes(1, key.as_bytes());
        pair.message(2, &value);
        self.message(field, &pair);
    }

    fn text(&mut self, field: u64, key: &str, text: &str) {
        self.attribute(field, key, |value| value.bytes(1, text.as_bytes()));
    }
}

/// The request that carries `spans` of a process with these `resource` attributes.
#[must_use]
pub(super) fn request(resource: &[(String, String)], spans: &[Span]) -> Vec<u8> {
    let mut described = Message::default();
    for (key, value) in resource {
        described.text(1, key, value);
    }
    let mut scope = Message::default();
    scope.bytes(1, b"flagside");
    scope.bytes(2, env!("CARGO_PKG_VERSION").as_bytes());
    let mut scoped = Message::default();
    scoped.message(1, &scope);
    for span in spans {
        scoped.message(2, &encoded(span));
    }
    let mut of_resource = Message::default();
    of_resource.message(1, &described);
    of_resource.message(2, &scoped);
    let mut request = Message::default();
    request.message(1, &of_resource);
    request.0
}

fn encoded(span: &Span) -> Message {
    let mut out = Message::default();
    out.bytes(1, &span.context.trace_id.to_be_bytes());
    out.bytes(2, &span.context.span_id.to_be_bytes());
    if let Some(parent) = span.parent {
        out.bytes(4, &parent.to_be_bytes());
    }
    out.bytes(5, span.name.as_bytes());
    out.number(6, span.kind as u64);
    out.fixed64(7, span.started_at);
    out.fixed64(8, span.ended_at);
    for (key, text) in &span.texts {
        out.text(9, key, text);
    }
    if let Some(status) = span.status {
        out.attribute(9, "http.response.status_code", |value| {
            value.number(3, u64::from(status))
        });
    }
    if span.failed {
        let mut status = Message::default();
        status.number(3, 2);
        out.message(15, &status);
    }
    out.fixed32(16, 1);
    out
}

#[cfg(test)]
mod tests {
    use super::super::{Context, SpanKind};
    use super::*;

    #[test]
    fn bytes_are_those_of_the_specification() {
        let span = Span {
            context: Context {
                trace_id: 1,
                span_id: 2,
                sampled: true,
            },
            parent: Some(3),
            name: "GET x".to_owned(),
            kind: SpanKind::Server,
            started_at: 4,
            ended_at: 300,
            texts: vec![("k", "v".to_owned())],
            status: Some(503),
            failed: true,
        };
        let encoded = encoded(&span).0;
        let mut wanted = vec![0x0a, 16];
        wanted.extend(1_u128.to_be_bytes());
        wanted.extend([0x12, 8, 0, 0, 0, 0, 0, 0, 0, 2, 0x22, 8, 0, 0, 0, 0, 0, 0, 0, 3]);
        wanted.extend(*b"\x2a\x05GET x\x30\x02\x39\x04\0\0\0\0\0\0\0\x41\x2c\x01\0\0\0\0\0\0");
        wanted.extend(*b"\x4a\x08\x0a\x01k\x12\x03\x0a\x01v");
        wanted.extend(*b"\x4a\x20\x0a\x19http.response.status_code\x12\x03\x18\xf7\x03");
        wanted.extend(*b"\x7a\x02\x18\x02\x85\x01\x01\0\0\0");
        assert_eq!(encoded, wanted);
    }
}
