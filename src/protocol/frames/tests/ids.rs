//! Where ids stand, what is read and written there, and which places can't be.

use std::slice;

use super::super::IdsFault::{self, *};
use super::super::id::NoId::{self, NotInSight, Outside};
use super::super::id::{locate, read, write};
use super::declared::*;
use super::*;

/// A frame, and the same with other ids.
struct Row {
    name: &'static str,
    places: Vec<Place>,
    frame: &'static [u8],
    ids: IdValues,
    put: u64,
    written: &'static [u8],
}

fn row(
    name: &'static str,
    places: Vec<Place>,
    (frame, ids): (&'static [u8], IdValues),
    (put, written): (u64, &'static [u8]),
) -> Row {
    Row {
        name,
        places,
        frame,
        ids,
        put,
        written,
    }
}

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    let strict = || vec![behind(&[(field(8, 4), 1)], field(0, 4))];
    let header = || thrift_header().ids.request;
    vec![
        row("Dubbo", vec![at(field(4, 8))],
            (DUBBO_CALL, [0x102, 0]),
            (0x0123_4567_89ab_cdef, b"\xda\xbb\xc2\x00\x01\x23\x45\x67\x89\xab\xcd\xef\0\0\0\x06\x052.0.2")),
        row("Kafka request", vec![at(field(8, 4))],
            (KAFKA_CALL, [7, 0]),
            (0x0102_0304, b"\0\0\0\x0e\0\x12\0\0\x01\x02\x03\x04\0\x04test")),
        row("Kafka reply", vec![at(field(4, 4))],
            (KAFKA_REPLY, [7, 0]),
            (0x0102_0304, b"\0\0\0\x0a\x01\x02\x03\x04\0\0\0\0\0\0")),
        row("Thrift", strict(),
            (THRIFT_CALL, [1, 0]),
            (0x0a0b_0c0d, b"\0\0\0\x11\x80\x01\0\x01\0\0\0\x04ping\x0a\x0b\x0c\x0d\0")),
        row("Thrift, a name of no bytes", strict(),
            (b"\0\0\0\x0d\x80\x01\0\x01\0\0\0\0\0\0\x01\x02\0", [0x102, 0]),
            (3, b"\0\0\0\x0d\x80\x01\0\x01\0\0\0\0\0\0\0\x03\0")),
        row("Thrift header, request", header(),
            (HEADER_CALL, [9, 9]),
            (0x0a0b_0c0d, b"\0\0\0\x1f\x0f\xff\0\0\x0a\x0b\x0c\x0d\0\x01\0\0\0\0\x80\x01\0\x01\0\0\0\x04ping\x0a\x0b\x0c\x0d\0")),
        row("Thrift header, reply", header(),
            (HEADER_REPLY, [9, 9]),
            (1, b"\0\0\0\x23\x0f\xff\0\0\0\0\0\x01\0\x02\0\0\0\0\0\0\0\0\x80\x01\0\x02\0\0\0\x04ping\0\0\0\x01\0")),
        row("Thrift header, ids that differ", header(),
            (b"\0\0\0\x1b\x0f\xff\0\0\x80\0\0\x07\0\0\x80\x01\0\x01\0\0\0\x04ping\xff\xff\xff\xff\0", [0x8000_0007, 0xffff_ffff]),
            (2, b"\0\0\0\x1b\x0f\xff\0\0\0\0\0\x02\0\0\x80\x01\0\x01\0\0\0\x04ping\0\0\0\x02\0")),
        row("Mongo request", vec![at(little_field(4, 4))],
            (MONGO_CALL, [0x105, 0]),
            (0x0a0b_0c0d, b"\x12\0\0\0\x0d\x0c\x0b\x0a\0\0\0\0\xdd\x07\0\0ok")),
        row("Mongo reply", vec![at(little_field(8, 4))],
            (MONGO_REPLY, [0x105, 0]),
            (0x0a0b_0c0d, b"\x12\0\0\0\x63\0\0\0\x0d\x0c\x0b\x0a\xdd\x07\0\0ok")),
        row("little endian behind a big one", vec![behind(&[(field(0, 2), 1)], little_field(1, 3))],
            (b"\0\x02ab-\x01\x02\x03", [0x03_0201, 0]),
            (4, b"\0\x02ab-\x04\0\0")),
        row("big endian behind a little one", vec![behind(&[(little_field(0, 2), 3)], field(0, 3))],
            (b"\x01\0abc\x01\x02\x03", [0x01_0203, 0]),
            (4, b"\x01\0abc\0\0\x04")),
        row("a digit", vec![at(field(5, 3))],
            (FIXED_CALL, [0x30_3037, 0]),
            (1, b"call \0\0\x01")),
        row("of a number that is too large, its low bytes", vec![at(field(1, 2)), at(little_field(3, 1))],
            (b"-\0\x01\x02-", [1, 2]),
            (0xabcd_0304, b"-\x03\x04\x04-")),
        row("8 bytes, all ones", vec![at(field(0, 8))],
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", [u64::MAX, 0]),
            (0, b"\0\0\0\0\0\0\0\0")),
        row("a step that counts nothing", vec![behind(&[(field(0, 1), 0)], field(0, 1))],
            (b"\xff\x05", [5, 0]),
            (6, b"\xff\x06")),
        row("behind four steps", vec![behind(&[(field(0, 1), 1), (field(1, 1), 2), (field(0, 1), 1), (field(0, 1), 255)], field(1, 1))],
            (b"\x01a-\x01bb\0\0-\x09", [9, 0]),
            (8, b"\x01a-\x01bb\0\0-\x08")),
    ]
}

#[test]
fn ids_are_read_and_put_where_they_stand() {
    for row in rows() {
        let places = &row.places;
        let length = row.frame.len() as u64;
        let spots = locate(places, row.frame, length).unwrap_or_else(|_| panic!("{}", row.name));
        assert_eq!(read(places, spots, row.frame), row.ids, "{}", row.name);
        let mut frame = row.frame.to_vec();
        write(places, spots, &mut frame, [row.put; PLACES_MAX]);
        assert_eq!(text(&frame), text(row.written), "{}", row.name);
    }
}

#[test]
fn a_frame_is_as_it_was_once_its_ids_are_put_back() {
    for row in rows() {
        let places = &row.places;
        let mut frame = row.frame.to_vec();
        for put in [row.put, 1, 0, u64::MAX] {
            let spots = locate(places, &frame, u64::MAX);
            let spots = spots.unwrap_or_else(|_| panic!("{}", row.name));
            let before = read(places, spots, &frame);
            write(places, spots, &mut frame, [put; PLACES_MAX]);
            // They stand where they stood.
            assert_eq!(locate(places, &frame, u64::MAX), Ok(spots), "{}", row.name);
            write(places, spots, &mut frame, before);
            assert_eq!(text(&frame), text(row.frame), "{}", row.name);
        }
    }
}

#[test]
fn ids_are_in_sight_with_the_last_byte_of_the_last() {
    for row in rows() {
        let places = &row.places;
        let length = row.frame.len() as u64;
        let spots = locate(places, row.frame, length).unwrap_or_else(|_| panic!("{}", row.name));
        let mut changed = row.frame.to_vec();
        write(places, spots, &mut changed, row.ids.map(|id| !id));
        let mut pairs = row.frame.iter().zip(&changed);
        let last = pairs.rposition(|(before, after)| before != after);
        for shown in 0..=row.frame.len() {
            let expected = match last.is_some_and(|last| last < shown) {
                true => Ok(spots),
                false => Err(NotInSight),
            };
            let found = locate(places, &row.frame[..shown], length);
            assert_eq!(found, expected, "{} up to {shown}", row.name);
        }
    }
}

/// A place, the bytes in sight, and how long their frame is.
#[rustfmt::skip]
fn nowheres() -> Vec<(&'static str, Place, Vec<u8>, u64, NoId)> {
    let far = |value: u64, unit| (behind(&[(field(0, 8), unit)], field(0, 1)), value.to_be_bytes().to_vec());
    let (beyond, beyond_bytes) = far(5000, 1);
    let (product, product_bytes) = far(17, 255);
    let (overflow, overflow_bytes) = far(u64::MAX, 1);
    let (twofold, twofold_bytes) = far(u64::MAX, 2);
    let (wrapping, wrapping_bytes) = far((1 << 63) + 1, 2);
    let (at_max, at_max_bytes) = far(4096 - 9, 1);
    let (over_max, over_max_bytes) = far(4096 - 8, 1);
    let steps = [(field(0, 2), 1); 4];
    vec![
        ("nothing in sight", at(field(0, 1)), vec![], 1, NotInSight),
        ("all but the last byte", at(field(4, 8)), vec![0; 11], 16, NotInSight),
        ("all but the last byte of the frame", at(field(4, 8)), vec![0; 11], 12, NotInSight),
        ("one byte too short", at(field(4, 8)), vec![0; 11], 11, Outside),
        ("too short, and nothing in sight", at(field(4, 8)), vec![], 11, Outside),
        ("the next frame's bytes", at(field(4, 8)), vec![0; 24], 11, Outside),
        ("a step with its last byte not in sight", behind(&[(field(8, 4), 1)], field(0, 4)), vec![0; 11], 100, NotInSight),
        ("a step behind the end", behind(&[(field(8, 4), 1)], field(0, 4)), vec![0; 20], 11, Outside),
        ("an id right behind the end", behind(&[(field(0, 1), 1)], field(0, 1)), vec![2, 0, 0, 9], 3, Outside),
        ("an id that the end cuts", behind(&[(field(0, 1), 1)], field(0, 4)), vec![2; 9], 6, Outside),
        ("a name longer than its frame", behind(&[(field(8, 4), 1)], field(0, 4)), b"\0\0\0\x11\x80\x01\0\x01\0\0\x0f\x04ping\0\0\0\x01\0".to_vec(), 21, Outside),
        ("beyond 4096 bytes", beyond, beyond_bytes, 1 << 20, Outside),
        ("the last that lies within 4096 bytes", at_max, at_max_bytes, 1 << 20, NotInSight),
        ("the first that does not", over_max, over_max_bytes, 1 << 20, Outside),
        ("beyond 4096 bytes by its unit", product, product_bytes, 1 << 20, Outside),
        ("all that 8 bytes can say", overflow, overflow_bytes, u64::MAX, Outside),
        ("twice as much", twofold, twofold_bytes, u64::MAX, Outside),
        ("twice as much, which wraps to 2", wrapping, wrapping_bytes, u64::MAX, Outside),
        ("beyond 4096 bytes in several steps", behind(&steps, field(0, 1)), [&[4, 0][..], &[0; 1024]].concat().repeat(4), u64::MAX, Outside),
        ("4096 bytes with each step", behind(&steps, field(0, 1)), [&[16, 0][..], &[16; 5000]].concat(), u64::MAX, Outside),
    ]
}

#[test]
fn an_id_that_is_not_there_is_not_found() {
    for (name, place, bytes, length, expected) in nowheres() {
        let found = locate(slice::from_ref(&place), &bytes, length);
        assert_eq!(found, Err(expected), "{name}");
        // Nor is one in two places of which the second is not there.
        if !bytes.is_empty() {
            let both = [at(field(0, 1)), place];
            let found = locate(&both, &bytes, length);
            assert_eq!(found, Err(expected), "{name}, behind another");
        }
    }
}

fn one(place: Place) -> Ids {
    both(vec![place])
}

fn differ(request: Vec<Place>, reply: Vec<Place>) -> Ids {
    Ids { request, reply }
}

#[rustfmt::skip]
fn faults() -> Vec<(&'static str, Ids, Result<(), IdsFault>)> {
    let digit = || at(field(0, 1));
    let behind_digit = || behind(&[(field(0, 1), 1)], field(0, 1));
    let steps = |count| vec![(field(0, 1), 1); count];
    vec![
        ("no place", both(vec![]), Err(Places)),
        ("no place in replies", differ(vec![digit()], vec![]), Err(Places)),
        ("two places", both(vec![digit(), at(field(1, 1))]), Ok(())),
        ("three places", both(vec![digit(), at(field(1, 1)), at(field(2, 1))]), Err(Places)),
        ("three places in replies", differ(vec![digit()], vec![digit(), at(field(1, 1)), at(field(2, 1))]), Err(Places)),
        ("elsewhere in replies", differ(vec![digit()], vec![behind_digit()]), Ok(())),
        ("another order of bytes in replies", differ(vec![at(field(0, 2))], vec![at(little_field(0, 2))]), Ok(())),
        ("wider in replies", differ(vec![digit()], vec![at(field(0, 2))]), Err(Unlike)),
        ("twice in replies", differ(vec![digit()], vec![digit(), at(field(1, 1))]), Err(Unlike)),
        ("widths the other way round", differ(vec![digit(), at(field(1, 2))], vec![at(field(0, 2)), at(field(2, 1))]), Err(Unlike)),
        ("no byte wide", one(at(field(0, 0))), Err(BadWidth)),
        ("8 bytes wide", one(at(field(0, 8))), Ok(())),
        ("9 bytes wide", one(at(field(0, 9))), Err(BadWidth)),
        ("as wide as can be", one(at(field(0, usize::MAX))), Err(BadWidth)),
        ("as wide and as far as can be", one(at(field(usize::MAX, usize::MAX))), Err(BadWidth)),
        ("a step of no byte", one(behind(&[(field(0, 0), 1)], field(0, 1))), Err(BadWidth)),
        ("a step of 9 bytes", one(behind(&[(field(0, 9), 1)], field(0, 1))), Err(BadWidth)),
        ("four steps", one(behind(&steps(4), field(0, 1))), Ok(())),
        ("five steps", one(behind(&steps(5), field(0, 1))), Err(TooManySteps)),
        ("the last of 4096 bytes", one(at(field(4095, 1))), Ok(())),
        ("behind 4096 bytes", one(at(field(4096, 1))), Err(TooFarIn)),
        ("half of it behind 4096 bytes", one(at(field(4095, 2))), Err(TooFarIn)),
        ("as far as can be", one(at(field(usize::MAX, 1))), Err(TooFarIn)),
        ("as far as can be, in replies", differ(vec![digit()], vec![at(field(usize::MAX - 7, 8))]), Err(TooFarIn)),
        ("a step as far as can be", one(behind(&[(field(usize::MAX, 8), 1)], field(0, 1))), Err(TooFarIn)),
        ("behind four steps as far as can be", one(behind(&[(field(usize::MAX, 8), 255); 4], field(usize::MAX, 8))), Err(TooFarIn)),
        ("4096 bytes with its steps", one(behind(&[(field(2000, 8), 1)], field(2080, 8))), Ok(())),
        ("one more with its steps", one(behind(&[(field(2000, 8), 1)], field(2081, 8))), Err(TooFarIn)),
        ("one place twice", both(vec![digit(), digit()]), Err(OutOfOrder)),
        ("places that overlap", both(vec![at(field(0, 4)), at(field(3, 4))]), Err(OutOfOrder)),
        ("places that touch", both(vec![at(field(0, 4)), at(field(4, 4))]), Ok(())),
        ("the second before the first", both(vec![at(field(4, 4)), at(field(0, 4))]), Err(OutOfOrder)),
        ("one that moves and one that does not", both(vec![behind_digit(), at(field(40, 1))]), Err(OutOfOrder)),
        ("two that move", both(vec![behind_digit(), behind(&[(field(40, 1), 1)], field(0, 1))]), Err(OutOfOrder)),
        ("a step within the first place", both(vec![at(field(0, 4)), behind(&[(field(3, 1), 1)], field(0, 1))]), Err(OutOfOrder)),
        ("a step behind the first place", both(vec![at(field(0, 4)), behind(&[(field(4, 1), 1)], field(0, 1))]), Ok(())),
        ("out of order in replies", differ(vec![digit(), at(field(1, 1))], vec![at(field(1, 1)), digit()]), Err(OutOfOrder)),
    ]
}

#[test]
fn impossible_places_are_named() {
    for (name, ids, expected) in faults() {
        assert_eq!(ids.check(8 << 20, &[]), expected, "{name}");
    }
}

#[test]
fn an_id_lies_within_the_longest_frame() {
    for (frame_max, expected) in [
        (0, Err(TooFarIn)),
        (15, Err(TooFarIn)),
        (16, Ok(())),
        (usize::MAX, Ok(())),
    ] {
        let fixed = one(at(field(8, 8)));
        assert_eq!(fixed.check(frame_max, &[]), expected, "{frame_max}");
        let moving = one(behind(&[(field(6, 2), 1)], field(0, 8)));
        assert_eq!(moving.check(frame_max, &[]), expected, "{frame_max}");
    }
}

#[test]
#[expect(clippy::single_range_in_vec_init, reason = "one range is reserved")]
fn nothing_else_stands_where_an_id_may() {
    let fixed = || one(at(field(4, 4)));
    let moving = || one(behind(&[(field(2, 1), 1)], field(1, 4)));
    let second = || both(vec![at(field(0, 1)), at(field(4, 4))]);
    let reply = || differ(vec![at(field(0, 4))], vec![at(field(4, 4))]);
    for (name, ids, frees, takens) in [
        (
            "fixed",
            fixed(),
            vec![0..4, 8..9, 8..4096],
            vec![3..5, 4..5, 7..8, 0..256],
        ),
        // Where it moves to is known by the frame only.
        (
            "moving",
            moving(),
            vec![0..4, 2..3],
            vec![3..5, 8..9, 255..256],
        ),
        ("second", second(), vec![1..4, 8..9], vec![0..1, 4..5, 7..8]),
        ("reply", reply(), vec![8..9], vec![0..1, 7..8]),
    ] {
        for free in frees {
            let found = ids.check(4096, slice::from_ref(&free));
            assert_eq!(found, Ok(()), "{name}, {free:?}");
        }
        for taken in takens {
            let found = ids.check(4096, &[9000..9001, taken.clone()]);
            assert_eq!(found, Err(Overlaps), "{name}, {taken:?}");
        }
    }
}

#[test]
fn an_id_fits_into_each_place_with_a_sign_or_without() {
    for (widths, expected) in [
        (&[1][..], 0x7f),
        (&[2], 0x7fff),
        (&[3], 0x7f_ffff),
        (&[4], 0x7fff_ffff),
        (&[7], 0x7f_ffff_ffff_ffff),
        (&[8], 0x7fff_ffff_ffff_ffff),
        (&[4, 2], 0x7fff),
        (&[2, 8], 0x7fff),
    ] {
        let places = widths.iter().enumerate();
        let places = places.map(|(number, width)| at(field(8 * number, *width)));
        assert_eq!(both(places.collect()).id_max(), expected, "{widths:?}");
    }
}
