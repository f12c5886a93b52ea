//! What a request says about its reply.

/// The shape of a reply, and what of it the client is not to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// What replies there may be. Each of them may be an error line instead: `ERROR`,
    /// `CLIENT_ERROR …` or `SERVER_ERROR …`.
    pub shape: Shape,
    /// What is hidden because the client asked for silence, and the request was disarmed.
    pub hidden: Hidden,
}

/// What the reply to a command may be, as memcached's `doc/protocol.txt` has it. Where the meta
/// commands say `HD`, the first versions of 1.6 said `OK`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `VALUE <key> <flags> <bytes> [<cas>]` with data each, until `END`.
    Values,
    /// `STORED`, `NOT_STORED`, `EXISTS`, `NOT_FOUND`.
    Stored,
    /// `DELETED`, `NOT_FOUND`.
    Deleted,
    /// `TOUCHED`, `NOT_FOUND`.
    Touched,
    /// A number, `NOT_FOUND`.
    Number,
    /// `VERSION …`.
    Version,
    /// Any one line: commands of the operator have words of their own.
    AnyLine,
    /// `STAT`, `ITEM` and `PREFIX` lines until `END`; or `OK` or `RESET`.
    Statistics,
    /// `VA <bytes> <flags>*` with data, `HD`, `EN`.
    MetaGet,
    /// `HD`, `NS`, `EX`, `NF`.
    MetaSet,
    /// `HD`, `NF`, `EX`.
    MetaDelete,
    /// `VA` with data, `HD`, `NF`, `NS`, `EX`.
    MetaArithmetic,
    /// `ME …`, `EN`.
    MetaDebug,
}

/// Which replies memcached would not have sent for the request as its client wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hidden {
    /// None.
    Nothing,
    /// All, errors included: `noreply`.
    All,
    /// `EN`: the `q` flag of `mg`.
    Miss,
    /// `HD`, `VA` and `OK`: the `q` flag of `ms`, `md` and `ma`.
    Success,
}

impl Kind {
    /// A reply of which all is shown.
    #[must_use]
    pub const fn shown(shape: Shape) -> Self {
        Self {
            shape,
            hidden: Hidden::Nothing,
        }
    }

    /// Whether the client is to see a reply that begins with this word.
    pub(super) fn shows(self, word: &[u8]) -> bool {
        match self.hidden {
            Hidden::Nothing => true,
            Hidden::All => false,
            Hidden::Miss => word != b"EN",
            Hidden::Success => !matches!(word, b"HD" | b"VA" | b"OK"),
        }
    }
}
