//! A client of D-Bus: as much as it takes to ask systemd for a unit.
//!
//! Ours, since the well-kept crates serve a bus with threads, and a process
//! with threads can neither be cloned into namespaces nor enter one. See the
//! D-Bus specification.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// systemd waits for others itself; runc gives it as long.
const PATIENCE: Duration = Duration::from_secs(30);
const MAX_MESSAGE: usize = 1 << 20;
const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SENDER: u8 = 7;
const SIGNATURE: u8 = 8;

/// The value of a property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Bool(bool),
    U64(u64),
    Text(String),
    Bytes(Vec<u8>),
    U32s(Vec<u32>),
}

/// What a method is called with.
#[derive(Debug, Default)]
pub(crate) struct Body {
    signature: String,
    bytes: Writer,
}

/// A connection to a bus.
#[derive(Debug)]
pub(crate) struct Bus {
    stream: UnixStream,
    serial: u32,
    signals: VecDeque<Message>,
    /// Whose signals count, by its unique name: any program on the bus can send us some.
    heard: String,
}

/// Who is called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) destination: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
}

/// A message that came in.
#[derive(Debug, Default)]
pub(crate) struct Message {
    kind: u8,
    pub(crate) member: String,
    error: String,
    reply_to: u32,
    /// The bus itself writes it.
    sender: String,
    signature: String,
    body: Vec<u8>,
}

impl Bus {
    /// Connects to `unix:path=…` as the user that the host knows as `uid`.
    pub(crate) fn connect(address: &str, uid: u32) -> Result<Bus> {
        let stream = address
            .split(';')
            .find_map(|one| Some(open(one.strip_prefix("unix:")?)))
            .with_context(|| format!("bus address {address}: only unix: is known"))?
            .with_context(|| format!("connect to the bus {address}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut bus = Bus { stream, serial: 0, signals: VecDeque::new(), heard: String::new() };
        let name: String = uid.to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
        bus.stream.write_all(format!("\0AUTH EXTERNAL {name}\r\n").as_bytes())?;
        let answer = bus.line()?;
        ensure!(answer.starts_with("OK "), "the bus refuses user {uid}: {answer}");
        bus.stream.write_all(b"BEGIN\r\n")?;
        bus.call(DAEMON, "Hello", &Body::default())?;
        Ok(bus)
    }

    /// Has signals of the owner of a name sent here; `rule` as for AddMatch.
    pub(crate) fn watch(&mut self, name: &str, rule: &str) -> Result<()> {
        let reply = self.call(DAEMON, "GetNameOwner", &Body::default().text(name))?;
        self.heard = reply.reader().text().with_context(|| format!("the bus does not say who {name} is"))?;
        self.call(DAEMON, "AddMatch", &Body::default().text(rule)).map(drop)
    }

    /// Calls a method and waits for its answer.
    pub(crate) fn call(&mut self, target: Target<'_>, member: &str, body: &Body) -> Result<Message> {
        self.serial += 1;
        let message = encode(self.serial, target, member, body)?;
        self.stream.write_all(&message).context("write to the bus")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            ensure!(Instant::now() < deadline, "{member}: no answer in {} s", PATIENCE.as_secs());
            let message = self.receive()?;
            match message.kind {
                METHOD_RETURN if message.reply_to == self.serial => return Ok(message),
                ERROR if message.reply_to == self.serial => {
                    let text = if message.signature.starts_with('s') {
                        message.reader().text().unwrap_or_default()
                    } else {
                        String::new()
                    };
                    bail!("{member}: {}: {text}", message.error);
                }
                SIGNAL if message.sender == self.heard => self.signals.push_back(message),
                _ => {}
            }
        }
    }

    /// Waits for a signal that `wanted` gives something for.
    pub(crate) fn wait<T>(&mut self, wanted: impl Fn(&Message) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some(signal) = self.signals.pop_front() {
                if let Some(found) = wanted(&signal) {
                    return Ok(found);
                }
            }
            ensure!(Instant::now() < deadline, "no answer in {} s", PATIENCE.as_secs());
            let message = self.receive()?;
            if message.kind == SIGNAL && message.sender == self.heard {
                self.signals.push_back(message);
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).context("read from the bus")?;
            line.push(byte[0]);
            ensure!(line.len() < 4096, "the bus answers with no line");
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn receive(&mut self) -> Result<Message> {
        let mut head = [0; 16];
        self.stream.read_exact(&mut head).context("read from the bus")?;
        let mut start = Reader { bytes: &head, at: 0 };
        ensure!(start.byte() == Some(b'l'), "the bus speaks with the other byte order");
        let kind = start.byte().unwrap_or(0);
        start.at = 4;
        let length = start.u32().unwrap_or(0) as usize;
        start.at = 12;
        let fields = start.u32().unwrap_or(0) as usize;
        ensure!(length <= MAX_MESSAGE && fields <= MAX_MESSAGE, "the bus sends more than 1 MiB");
        let mut rest = vec![0; fields.next_multiple_of(8) + length];
        self.stream.read_exact(&mut rest).context("read from the bus")?;
        let body = rest.split_off(fields.next_multiple_of(8));
        let mut message = Message { kind, body, ..Message::default() };
        message.take_fields(&rest[..fields]).context("the bus sends no proper message")?;
        Ok(message)
    }
}

/// The bus itself.
const DAEMON: Target<'static> = Target {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

fn open(keys: &str) -> std::io::Result<UnixStream> {
    for key in keys.split(',') {
        if let Some(path) = key.strip_prefix("path=") {
            return UnixStream::connect(path);
        }
        if let Some(name) = key.strip_prefix("abstract=") {
            return UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?);
        }
    }
    Err(std::io::ErrorKind::InvalidInput.into())
}

fn encode(serial: u32, target: Target<'_>, member: &str, body: &Body) -> Result<Vec<u8>> {
    let mut fields = Writer::default();
    let mut field = |code: u8, kind: &str, value: &str| {
        fields.align(8);
        fields.0.push(code);
        fields.signature(kind);
        if kind == "g" { fields.signature(value) } else { fields.text(value) }
    };
    field(PATH, "o", target.path);
    field(INTERFACE, "s", target.interface);
    field(MEMBER, "s", member);
    field(DESTINATION, "s", target.destination);
    if !body.signature.is_empty() {
        field(SIGNATURE, "g", &body.signature);
    }
    let mut message = Writer(vec![b'l', METHOD_CALL, 0, 1]);
    message.u32(u32::try_from(body.bytes.0.len())?);
    message.u32(serial);
    message.u32(u32::try_from(fields.0.len())?);
    // The fields begin at 16: their own alignment is the message's.
    message.0.extend(fields.0);
    message.align(8);
    message.0.extend_from_slice(&body.bytes.0);
    Ok(message.0)
}

impl Body {
    /// `s`
    pub(crate) fn text(mut self, text: &str) -> Body {
        self.signature.push('s');
        self.bytes.text(text);
        self
    }

    /// `b`
    pub(crate) fn bool(mut self, value: bool) -> Body {
        self.signature.push('b');
        self.bytes.u32(value.into());
        self
    }

    /// `a(sv)`
    pub(crate) fn properties(mut self, properties: &[(&str, Value)]) -> Body {
        self.signature.push_str("a(sv)");
        self.bytes.array(8, |writer| {
            for (name, value) in properties {
                writer.align(8);
                writer.text(name);
                writer.variant(value);
            }
        });
        self
    }

    /// `a(sa(sv))` without entries.
    pub(crate) fn no_units(mut self) -> Body {
        self.signature.push_str("a(sa(sv))");
        self.bytes.array(8, |_| ());
        self
    }
}

impl Message {
    /// The body, to be read in its order.
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader { bytes: &self.body, at: 0 }
    }

    fn take_fields(&mut self, bytes: &[u8]) -> Option<()> {
        let mut reader = Reader { bytes, at: 0 };
        loop {
            reader.align(8);
            if reader.at >= bytes.len() {
                return Some(());
            }
            let code = reader.byte()?;
            match (code, reader.signature()?.as_str()) {
                (REPLY_SERIAL, "u") => self.reply_to = reader.u32()?,
                (SIGNATURE, "g") => self.signature = reader.signature()?,
                (MEMBER, "s") => self.member = reader.text()?,
                (ERROR_NAME, "s") => self.error = reader.text()?,
                (SENDER, "s") => self.sender = reader.text()?,
                (_, "s" | "o") => drop(reader.text()?),
                (_, "u") => drop(reader.u32()?),
                _ => return None,
            }
        }
    }
}

/// Values in the bus's layout.
#[derive(Debug, Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// The length that stands before leaves out the padding of the first.
    fn array(&mut self, alignment: usize, fill: impl FnOnce(&mut Writer)) {
        self.u32(0);
        let length_at = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        fill(self);
        let length = (self.0.len() - start) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn variant(&mut self, value: &Value) {
        match value {
            Value::Bool(value) => {
                self.signature("b");
                self.u32((*value).into());
            }
            Value::U64(value) => {
                self.signature("t");
                self.align(8);
                self.0.extend(value.to_le_bytes());
            }
            Value::Text(text) => {
                self.signature("s");
                self.text(text);
            }
            Value::Bytes(bytes) => {
                self.signature("ay");
                self.array(1, |writer| writer.0.extend(bytes));
            }
            Value::U32s(numbers) => {
                self.signature("au");
                self.array(4, |writer| numbers.iter().for_each(|number| writer.u32(*number)));
            }
        }
    }
}

/// Reads values of the bus's layout.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// `u`
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.align(4);
        let bytes = self.bytes.get(self.at..self.at.checked_add(4)?)?;
        self.at += 4;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    /// `s` or `o`
    pub(crate) fn text(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        self.characters(length)
    }

    /// `g`; also what stands before the value of a `v`.
    pub(crate) fn signature(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        self.characters(length)
    }

    fn characters(&mut self, length: usize) -> Option<String> {
        let end = self.at.checked_add(length)?;
        let text = String::from_utf8(self.bytes.get(self.at..end)?.to_vec()).ok()?;
        self.at = end + 1;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_laid_out_as_specified() {
        let body = Body::default().text("x").bool(true).properties(&[("P", Value::U64(7))]);
        let target = Target { destination: "d", path: "/p", interface: "i" };
        let bytes = encode(9, target, "M", &body).unwrap();
        assert_eq!(bytes[..4], [b'l', 1, 0, 1]);
        let mut reader = Reader { bytes: &bytes, at: 4 };
        let body_length = reader.u32().unwrap() as usize;
        assert_eq!(reader.u32(), Some(9));
        let fields = reader.u32().unwrap() as usize;
        let body_at = 16 + fields.next_multiple_of(8);
        assert_eq!(bytes.len(), body_at + body_length);
        let mut message = Message::default();
        message.take_fields(&bytes[16..16 + fields]).unwrap();
        assert_eq!((message.member.as_str(), message.signature.as_str()), ("M", "sba(sv)"));
        let wanted = [
            &[1, 0, 0, 0, b'x', 0, 0, 0, 1, 0, 0, 0][..],
            // 24 bytes of one entry, which begins at 16: a text, a signature, a number at a multiple of 8.
            &[24, 0, 0, 0, 1, 0, 0, 0, b'P', 0, 1, b't', 0, 0, 0, 0],
            &[0; 0],
        ]
        .concat();
        assert_eq!(bytes[body_at..body_at + wanted.len()], wanted);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let mut message = Message::default();
        assert!(message.take_fields(&[1, 1, b'o', 0, 255, 0, 0, 0, b'/']).is_none());
        assert!(message.take_fields(&[9, 1, b'x', 0]).is_none());
        assert!(Message::default().reader().text().is_none());
    }

    /// A message of a bus.
    fn message(kind: u8, reply_to: u32, sender: &str, member: &str, texts: &[&str]) -> Vec<u8> {
        let mut fields = Writer::default();
        for (code, text) in [(SENDER, sender), (MEMBER, member)] {
            fields.align(8);
            fields.0.push(code);
            fields.signature("s");
            fields.text(text);
        }
        fields.align(8);
        fields.0.push(REPLY_SERIAL);
        fields.signature("u");
        fields.u32(reply_to);
        let body = texts.iter().fold(Body::default(), |body, text| body.text(text));
        let mut message = Writer(vec![b'l', kind, 0, 1]);
        for number in [body.bytes.0.len() as u32, 1, fields.0.len() as u32] {
            message.u32(number);
        }
        message.0.extend(fields.0);
        message.align(8);
        message.0.extend(body.bytes.0);
        message.0
    }

    #[test]
    fn signals_of_strangers_are_not_heard() {
        let name = format!("sallet-test-bus-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = [0; 4096];
            // AUTH, BEGIN and Hello, then what `watch` and `call` ask.
            assert!(stream.read(&mut bytes).unwrap() > 0);
            stream.write_all(b"OK 0\r\n").unwrap();
            let mut heard = Vec::new();
            for (serial, member) in (1..).zip(["Hello", "GetNameOwner", "AddMatch", "Start"]) {
                while !heard.windows(member.len()).any(|at| at == member.as_bytes()) {
                    let n = stream.read(&mut bytes).unwrap();
                    heard.extend_from_slice(&bytes[..n]);
                }
                if member == "Start" {
                    stream.write_all(&message(SIGNAL, 0, ":1.9", "Removed", &["forged"])).unwrap();
                }
                stream.write_all(&message(METHOD_RETURN, serial, ":1.1", "", &[":1.1"])).unwrap();
            }
            stream.write_all(&message(SIGNAL, 0, ":1.9", "Removed", &["forged"])).unwrap();
            stream.write_all(&message(SIGNAL, 0, ":1.1", "Removed", &["done"])).unwrap();
        });
        let mut bus = Bus::connect(&format!("unix:abstract={name}"), 0).unwrap();
        bus.watch("manager", "rule").unwrap();
        let target = Target { destination: "manager", path: "/", interface: "i" };
        bus.call(target, "Start", &Body::default()).unwrap();
        let told = bus.wait(|signal| signal.reader().text()).unwrap();
        assert_eq!(told, "done");
        server.join().unwrap();
    }

    #[test]
    fn addresses_are_understood() {
        assert!(Bus::connect("tcp:host=x", 0).is_err());
        assert!(Bus::connect("unix:path=/nowhere,guid=1", 0).is_err());
    }
}
