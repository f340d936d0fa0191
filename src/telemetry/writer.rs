//! The way of log lines to standard output: a bounded buffer and a thread that empties it.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::metrics::{LogLevel, LogMetrics};

/// Bytes of lines that wait to be written; more are dropped.
const BUFFER_MAX: usize = 1 << 20;
/// An empty buffer larger than this is given back.
const BUFFER_KEPT: usize = 64 << 10;

/// Takes lines without ever waiting for the output.
#[derive(Debug)]
pub(super) struct Writer {
    buffer: Mutex<Buffer>,
    /// Lines have come, or the end.
    filled: Condvar,
    /// The thread has written everything and gone.
    gone: Condvar,
    counts: Arc<LogMetrics>,
}

#[derive(Debug, Default)]
struct Buffer {
    lines: Vec<u8>,
    /// No further lines are taken.
    is_finished: bool,
    /// A thread is writing.
    is_running: bool,
}

impl Writer {
    /// A writer that keeps lines until it is started.
    pub(super) fn new(counts: Arc<LogMetrics>) -> Self {
        Self {
            buffer: Mutex::default(),
            filled: Condvar::new(),
            gone: Condvar::new(),
            counts,
        }
    }

    /// Starts the thread that writes to `output`. What it cannot write is lost, silently: there is nowhere
    /// to complain.
    pub(super) fn start(self: &Arc<Self>, output: impl Write + Send + 'static) -> io::Result<()> {
        let writer = Arc::clone(self);
        self.lock().is_running = true;
        let started = thread::Builder::new()
            .name("flagside-log".to_owned())
            .spawn(move || writer.run(output));
        if let Err(error) = started {
            self.lock().is_running = false;
            return Err(error);
        }
        Ok(())
    }

    /// Takes a line, which ends with a newline, or drops it.
    pub(super) fn line(&self, level: LogLevel, line: &[u8]) {
        let mut buffer = self.lock();
        let fits = !buffer.is_finished && buffer.lines.len() + line.len() <= BUFFER_MAX;
        if fits {
            buffer.lines.extend_from_slice(line);
        }
        drop(buffer);
        if fits {
            self.counts.written(level);
            self.filled.notify_one();
        } else {
            self.counts.dropped(level);
        }
    }

    /// Takes no further lines and waits until all are written, but no longer than `patience`.
    pub(super) fn finish(&self, patience: Duration) {
        let mut buffer = self.lock();
        buffer.is_finished = true;
        self.filled.notify_one();
        // What cannot be written in time is lost with the process.
        let _ = self
            .gone
            .wait_timeout_while(buffer, patience, |buffer| buffer.is_running);
    }

    fn run(&self, mut output: impl Write) {
        let mut writing = Vec::new();
        while self.next(&mut writing) {
            let _ = output.write_all(&writing).and_then(|()| output.flush());
        }
        self.lock().is_running = false;
        self.gone.notify_all();
    }

    /// Waits for lines and swaps them into `lines`; false at the end.
    fn next(&self, lines: &mut Vec<u8>) -> bool {
        lines.clear();
        lines.shrink_to(BUFFER_KEPT);
        let waiting = self.filled.wait_while(self.lock(), |buffer| {
            buffer.lines.is_empty() && !buffer.is_finished
        });
        let mut buffer = waiting.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut buffer.lines, lines);
        !lines.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Buffer> {
        // Nothing under this lock can leave the buffer half done.
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a writer that was not started has been given.
    #[cfg(test)]
    pub(super) fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut self.lock().lines)).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// An output that says what it was given and waits for a word before each write.
    struct Gate {
        go: Receiver<()>,
        seen: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.go.recv().map_err(io::Error::other)?;
            self.seen.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (Arc<Writer>, Arc<LogMetrics>, Sender<()>, Receiver<Vec<u8>>) {
        let counts = Arc::new(LogMetrics::default());
        let writer = Arc::new(Writer::new(Arc::clone(&counts)));
        let (go, gate) = channel();
        let (seen, written) = channel();
        writer.start(Gate { go: gate, seen }).unwrap();
        (writer, counts, go, written)
    }

    #[test]
    fn lines_that_do_not_fit_are_dropped_and_counted() {
        let (writer, counts, go, written) = gated();
        writer.line(LogLevel::Info, b"first\n");
        go.send(()).unwrap();
        assert_eq!(written.recv().unwrap(), b"first\n");
        // The output is stuck from here on.
        let line = vec![b'x'; BUFFER_MAX / 4];
        for _ in 0..10 {
            writer.line(LogLevel::Warn, &line);
        }
        // Four fit, and four more if the thread had taken the first ones off already.
        let dropped = counts.dropped_total(LogLevel::Warn);
        assert!((2..=6).contains(&dropped), "{dropped}");
        assert_eq!(counts.written_total(LogLevel::Warn), 10 - dropped);
        drop(go);
        writer.finish(Duration::from_secs(60));
    }

    #[test]
    fn the_end_waits_for_what_is_buffered() {
        let (writer, counts, go, written) = gated();
        writer.line(LogLevel::Info, b"last words\n");
        go.send(()).unwrap();
        writer.finish(Duration::from_secs(60));
        assert_eq!(written.try_recv().unwrap(), b"last words\n");
        writer.line(LogLevel::Info, b"too late\n");
        assert_eq!(counts.dropped_total(LogLevel::Info), 1);
    }

    #[test]
    fn the_end_does_not_wait_for_ever() {
        let (writer, _, go, _written) = gated();
        writer.line(LogLevel::Info, b"stuck\n");
        writer.finish(Duration::from_millis(1));
        assert!(writer.lock().is_running, "the thread is still in its write");
        drop(go);
    }

    #[test]
    fn a_broken_output_stops_nothing() {
        let (writer, _, go, _written) = gated();
        drop(go);
        writer.line(LogLevel::Info, b"lost\n");
        writer.line(LogLevel::Info, b"lost\n");
        writer.finish(Duration::from_secs(60));
        assert!(!writer.lock().is_running);
    }
}
