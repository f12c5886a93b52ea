//! Who was running when an event happened, as a line of a trace pipe says it.
//!
//! Pure. A line begins with `NAME-NUMBER [CPU] FLAGS TIME` (Documentation/trace/ftrace.rst). The name is
//! one that the kernel has noted for that number at some time, perhaps of a program before this one, so
//! it is not read. An interrupt borrows whatever task it finds: the task did something only where the
//! flags tell of none.
//!
//! Invariant: no line makes this panic; what can't be read is `None`.

use super::event;

/// A task, and in what context it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    /// The number of its thread in the host's own namespace of processes; 0 is an idle processor.
    pub thread: u32,
    /// What ran.
    pub context: Context,
}

/// What ran on the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// The task itself, by a system call or at its exit.
    Process,
    /// The kernel on its own behalf: a segment came, or a timer was due. The task was only interrupted.
    Interrupt,
}

/// Reads the beginning of a line that tells of an RST.
pub fn read(line: &str) -> Option<Task> {
    let (_, before, _) = event::split(line)?;
    let (before, _time) = before.rsplit_once(' ')?;
    let (before, flags) = before.trim_end().rsplit_once(' ')?;
    let (before, processor) = before.trim_end().rsplit_once(' ')?;
    if !(processor.starts_with('[') && processor.ends_with(']')) {
        return None;
    }
    let (_name, thread) = before.trim_end().rsplit_once('-')?;
    Some(Task {
        thread: thread.parse().ok()?,
        context: match flags.chars().nth(INTERRUPT_FLAG)? {
            '.' => Context::Process,
            _ => Context::Interrupt,
        },
    })
}

/// `s` in a soft interrupt, `h`, `H`, `z` and `Z` in a hard one; the places before it say whether
/// interrupts and bottom halves are off, and whether another task is due.
const INTERRUPT_FLAG: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const REST: &str = " 30674.548987: tcp_send_reset: src=1.2.3.4:5 dest=6.7.8.9:10 reason=ERROR";

    #[test]
    fn a_task_acts_only_outside_of_interrupts() {
        let table = [
            (
                "         python3-28537   [001] .....",
                28_537,
                Context::Process,
            ),
            (
                "           <...>-28537   [001] ..s1.",
                28_537,
                Context::Interrupt,
            ),
            (
                "          <idle>-0       [000] ..s..",
                0,
                Context::Interrupt,
            ),
            ("            curl-77      [000] b..2.", 77, Context::Process),
            (
                "            curl-77      [000] d.h1.",
                77,
                Context::Interrupt,
            ),
            // Linux before 5.17 has no place for migration.
            (
                "            curl-77      [000] .Ns.",
                77,
                Context::Interrupt,
            ),
            (" a [b] c: d-1-77 [000] ....", 77, Context::Process),
            ("-77 [000] ....", 77, Context::Process),
        ];
        for (head, thread, context) in table {
            let expected = Task { thread, context };
            assert_eq!(read(&format!("{head}{REST}")), Some(expected), "{head}");
        }
    }

    #[test]
    fn what_can_not_be_read_is_none() {
        for head in [
            "",
            "curl-77",
            "curl-77 000 ....",
            "curl [000] ....",
            "curl-77 [000] ..",
            "curl-x [000] ....",
        ] {
            assert_eq!(read(&format!("{head}{REST}")), None, "{head}");
        }
        assert_eq!(read("CPU:0 [LOST 1234 EVENTS]"), None);
        let whole = format!("curl-77 [000] ....{REST}");
        for end in 0..whole.len() {
            read(&whole[..end]);
            read(&whole[end..]);
        }
    }
}
