//! Bodies of FeatBit's evaluate endpoint: order and repetition change no canonical form.

#![no_main]

use flagside::evaluate::featbit::Request;
use flagside::evaluate::json::{Document, write_string};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Ok(request) = Request::parse(body) else {
        return;
    };
    // The server's reader skips a byte order mark.
    let text = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    let document = Document::parse(text, 32).expect("a request is JSON");
    // The same members in reverse; what comes twice is resolved before.
    let mut members: Vec<_> = document.root().members().collect();
    let names_differ = (0..members.len()).all(|at| {
        members[at + 1..]
            .iter()
            .all(|(name, _)| !name.eq_ignore_ascii_case(members[at].0))
    });
    if !names_differ {
        return;
    }
    members.reverse();
    let mut other = b"{ \"unknown\" : [1]".to_vec();
    for (name, value) in members {
        other.extend_from_slice(b" ,\n");
        write_string(&name.to_ascii_uppercase(), &mut other);
        other.push(b':');
        other.extend_from_slice(value.raw());
    }
    other.push(b'}');
    let other = Request::parse(&other).expect("it is spelled otherwise only");
    let forms = [request, other].map(|request| {
        let mut form = Vec::new();
        (request.canonical(&mut form), form)
    });
    assert_eq!(forms[0], forms[1]);
});
