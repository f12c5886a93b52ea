//! Where the id of a frame stands, by which a reply is known for that of its request.
//!
//! ```text
//!   "4:8"                  bytes 4 to 11                                 Dubbo
//!   "8:4 > 0:4"            behind a field of 4 bytes at 8 and as many
//!                          bytes as it says                              Thrift, framed, strict
//!   "8:4, 12:2*4 > 4:4 > 0:4"   in two places, which have the same       Thrift, header
//! ```
//!
//! Not here: what an id means (see `language`), and how its place is written in a file.
//!
//! Invariant: an id lies within its frame and within the first [`ID_END_BYTES_MAX`] bytes of it.

use std::ops::Range;

use thiserror::Error;

use super::layout::Endian;

/// Bytes of a frame within which its ids end.
pub const ID_END_BYTES_MAX: usize = 4096;
/// Places in which one frame has its id, at most.
pub const PLACES_MAX: usize = 2;
/// Fields in front of one id whose values say how far away it is, at most.
pub const STEPS_MAX: usize = 4;

/// Where requests and their replies have their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// Of a request.
    pub request: Vec<Place>,
    /// Of a reply: as many, and as wide.
    pub reply: Vec<Place>,
}

/// A place for an id: at a fixed distance, or behind parts of the frame that say how long they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What stands in front of it.
    pub steps: Vec<Step>,
    /// The id, counted from the end of the last step.
    pub field: Field,
}

/// A field and what it says the length of, which are passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The field, counted from the end of the step before.
    pub field: Field,
    /// So many bytes lie behind the field for each that it counts.
    pub unit: u8,
}

/// A number in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Bytes before it.
    pub offset: usize,
    /// Bytes of it, 1 to 8.
    pub width: usize,
    /// The order of its bytes.
    pub endian: Endian,
}

/// Why ids can't be told by their places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IdsFault {
    /// Of either direction.
    #[error("an id has no place, or more than {PLACES_MAX}")]
    Places,
    /// The directions differ in the number of places, or in the width of one.
    #[error("a request's id and a reply's are not alike")]
    Unlike,
    /// Of an id, or of a field in front of it.
    #[error("a field is not 1 to 8 bytes wide")]
    BadWidth,
    /// Over [`STEPS_MAX`].
    #[error("more than {STEPS_MAX} fields say where an id stands")]
    TooManySteps,
    /// Even with nothing between the fields.
    #[error("an id does not lie within the first {ID_END_BYTES_MAX} bytes of the longest frame")]
    TooFarIn,
    /// Only the last place may be behind others that move, and each begins behind the one before.
    #[error("the places of an id are not in order, or one that moves is not the last")]
    OutOfOrder,
    /// Of the length field, a mark or the magic: writing an id there would change what the frame is.
    #[error("an id may stand where something else of the frame does")]
    Overlaps,
}

/// What the places of a frame hold, each in a number.
pub type IdValues = [u64; PLACES_MAX];

/// Where the ids of one frame begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spots([usize; PLACES_MAX]);

/// Why there is nothing to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoId {
    /// More bytes of the frame are needed.
    NotInSight,
    /// It would lie behind the end of the frame, or too far in.
    Outside,
}

impl Ids {
    /// The largest id that fits into each place as a number that is read with a sign or without.
    pub(super) fn id_max(&self) -> u64 {
        let widths = self.request.iter().map(|place| place.field.width);
        let width = widths.min().unwrap_or(8).clamp(1, 8);
        u64::MAX >> (64 - 8 * width + 1)
    }

    /// Says what makes the places impossible in frames of up to `frame_max` bytes, in which something else
    /// stands in the `reserved` bytes.
    pub(super) fn check(
        &self,
        frame_max: usize,
        reserved: &[Range<usize>],
    ) -> Result<(), IdsFault> {
        for places in [&self.request, &self.reply] {
            check_places(places, frame_max, reserved)?;
        }
        let widths = |places: &[Place]| places.iter().map(|it| it.field.width).collect::<Vec<_>>();
        match widths(&self.request) == widths(&self.reply) {
            true => Ok(()),
            false => Err(IdsFault::Unlike),
        }
    }
}

fn check_places(
    places: &[Place],
    frame_max: usize,
    reserved: &[Range<usize>],
) -> Result<(), IdsFault> {
    if !(1..=PLACES_MAX).contains(&places.len()) {
        return Err(IdsFault::Places);
    }
    let mut free_from = 0;
    for (number, place) in places.iter().enumerate() {
        let id = place.nearest(frame_max)?;
        let is_fixed = place.steps.is_empty();
        let begins = place
            .steps
            .first()
            .map_or(id.start, |step| step.field.offset);
        if begins < free_from || (!is_fixed && number + 1 < places.len()) {
            return Err(IdsFault::OutOfOrder);
        }
        // One that moves may come to lie anywhere behind its nearest place.
        let reach = id.start..if is_fixed { id.end } else { usize::MAX };
        if reserved
            .iter()
            .any(|it| it.start < reach.end && reach.start < it.end)
        {
            return Err(IdsFault::Overlaps);
        }
        free_from = id.end;
    }
    Ok(())
}

impl Place {
    /// Where it lies when nothing is between the fields.
    fn nearest(&self, frame_max: usize) -> Result<Range<usize>, IdsFault> {
        if self.steps.len() > STEPS_MAX {
            return Err(IdsFault::TooManySteps);
        }
        let fields = self.steps.iter().map(|step| step.field).chain([self.field]);
        let mut end = 0usize;
        for field in fields {
            if !(1..=8).contains(&field.width) {
                return Err(IdsFault::BadWidth);
            }
            end = end.saturating_add(field.offset).saturating_add(field.width);
        }
        match end <= frame_max.min(ID_END_BYTES_MAX) {
            true => Ok(end - self.field.width..end),
            false => Err(IdsFault::TooFarIn),
        }
    }

    /// Where it begins in a frame of `length` bytes, of which these are in sight.
    fn locate(&self, frame: &[u8], length: u64) -> Result<usize, NoId> {
        let mut at = 0usize;
        for step in &self.steps {
            let value = step.field.read(frame, at, length)?;
            let passed = usize::try_from(value)
                .ok()
                .and_then(|value| value.checked_mul(step.unit.into()))
                .filter(|passed| *passed <= ID_END_BYTES_MAX)
                .ok_or(NoId::Outside)?;
            at += step.field.offset + step.field.width + passed;
        }
        self.field.read(frame, at, length)?;
        Ok(at + self.field.offset)
    }
}

impl Field {
    /// Reads it, counted from `from`.
    fn read(&self, frame: &[u8], from: usize, length: u64) -> Result<u64, NoId> {
        let start = from + self.offset;
        let end = start + self.width;
        if end > ID_END_BYTES_MAX || end as u64 > length {
            return Err(NoId::Outside);
        }
        let bytes = frame.get(start..end).ok_or(NoId::NotInSight)?;
        Ok(self.endian.number(bytes))
    }
}

/// Where the ids of a frame of `length` bytes stand.
pub(super) fn locate(places: &[Place], frame: &[u8], length: u64) -> Result<Spots, NoId> {
    let mut spots = [0; PLACES_MAX];
    for (place, spot) in places.iter().zip(&mut spots) {
        *spot = place.locate(frame, length)?;
    }
    Ok(Spots(spots))
}

/// What stands there.
pub(super) fn read(places: &[Place], spots: Spots, frame: &[u8]) -> IdValues {
    let mut values = [0; PLACES_MAX];
    for ((place, spot), value) in places.iter().zip(spots.0).zip(&mut values) {
        let Field { width, endian, .. } = place.field;
        *value = endian.number(&frame[spot..spot + width]);
    }
    values
}

/// Puts other values there.
pub(super) fn write(places: &[Place], spots: Spots, frame: &mut [u8], values: IdValues) {
    for ((place, spot), value) in places.iter().zip(spots.0).zip(values) {
        let Field { width, endian, .. } = place.field;
        endian.write(value, &mut frame[spot..spot + width]);
    }
}
