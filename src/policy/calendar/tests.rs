use super::*;

fn moment(text: &str) -> Timestamp {
    let moment: Moment = text.parse().unwrap();
    Timestamp::from_micros(u64::try_from(moment.as_microsecond()).unwrap())
}

/// Edges in UTC, as `2026-01-31T23:00:00Z` without the end.
fn edges(calendar: Calendar, now: &str) -> [String; 4] {
    calendar.windows(moment(now)).edges().map(|edge| {
        let edge = Moment::from_microsecond(edge.as_micros().cast_signed()).unwrap();
        edge.to_string().trim_end_matches(":00Z").to_owned()
    })
}

fn of(span: Span, zone: &str) -> Calendar {
    Calendar::new(span, zone).unwrap()
}

#[test]
fn months_have_the_lengths_of_the_calendar() {
    let months = Calendar::months().unwrap();
    let expected = ["2028-01-01T00:00", "2028-02-01T00:00", "2028-03-01T00:00", "2028-04-01T00:00"];
    for now in ["2028-02-01T00:00:00Z", "2028-02-29T23:59:59.999999Z"] {
        assert_eq!(edges(months, now), expected, "{now}, in a leap year");
    }
    let expected = ["2026-11-01T00:00", "2026-12-01T00:00", "2027-01-01T00:00", "2027-02-01T00:00"];
    assert_eq!(edges(months, "2026-12-31T23:59:59Z"), expected);
}

#[test]
fn day_that_a_month_does_not_have_is_its_last_one() {
    let last = of(Span::Month(31), "UTC");
    let expected = ["2027-01-31T00:00", "2027-02-28T00:00", "2027-03-31T00:00", "2027-04-30T00:00"];
    for now in ["2027-02-28T00:00:00Z", "2027-03-01T12:00:00Z", "2027-03-30T23:59:59Z"] {
        assert_eq!(edges(last, now), expected, "{now}");
    }
    let thirtieth = of(Span::Month(30), "UTC");
    let expected = ["2027-12-30T00:00", "2028-01-30T00:00", "2028-02-29T00:00", "2028-03-30T00:00"];
    assert_eq!(edges(thirtieth, "2028-02-28T23:59:59Z"), expected, "a leap year");
}

#[test]
fn days_are_those_of_the_zone_and_of_its_clocks() {
    // Berlin goes from UTC+1 to UTC+2 on 2026-03-29, and back on 2026-10-25.
    let berlin = of(Span::Day, "Europe/Berlin");
    let expected = ["2026-03-27T23:00", "2026-03-28T23:00", "2026-03-29T22:00", "2026-03-30T22:00"];
    assert_eq!(edges(berlin, "2026-03-29T12:00:00Z"), expected, "a day of 23 hours");
    let expected = ["2026-10-23T22:00", "2026-10-24T22:00", "2026-10-25T23:00", "2026-10-26T23:00"];
    assert_eq!(edges(berlin, "2026-10-25T22:59:59Z"), expected, "a day of 25 hours");
    let month = of(Span::Month(15), "Europe/Berlin");
    let expected = ["2026-02-14T23:00", "2026-03-14T23:00", "2026-04-14T22:00", "2026-05-14T22:00"];
    assert_eq!(edges(month, "2026-03-29T12:00:00Z"), expected);
}

#[test]
fn day_without_a_midnight_begins_at_its_first_moment() {
    // In Beirut 2025-03-30 began at 01:00 summer time, which is 2025-03-29T22:00Z.
    let beirut = of(Span::Day, "Asia/Beirut");
    let expected = ["2025-03-28T22:00", "2025-03-29T22:00", "2025-03-30T21:00", "2025-03-31T21:00"];
    assert_eq!(edges(beirut, "2025-03-29T22:00:00Z"), expected);
}

#[test]
fn weeks_begin_on_their_day() {
    let monday = of(Span::Week(Weekday::Monday), "UTC");
    let expected = ["2026-11-16T00:00", "2026-11-23T00:00", "2026-11-30T00:00", "2026-12-07T00:00"];
    for now in ["2026-11-23T00:00:00Z", "2026-11-27T12:00:00Z", "2026-11-29T23:59:59Z"] {
        assert_eq!(edges(monday, now), expected, "{now}");
    }
    let saturday = of(Span::Week(Weekday::Saturday), "UTC");
    let expected = ["2026-11-14T00:00", "2026-11-21T00:00", "2026-11-28T00:00", "2026-12-05T00:00"];
    assert_eq!(edges(saturday, "2026-11-27T12:00:00Z"), expected);
}

#[test]
fn windows_follow_each_other_without_gaps_in_every_zone_and_from_every_day() {
    let mut spans = vec![Span::Day, Span::Week(Weekday::Sunday)];
    spans.extend([1, 15, 28, 29, 30, 31].map(Span::Month));
    for zone in ["UTC", "America/Sao_Paulo", "Europe/Dublin", "Pacific/Apia", "Asia/Kathmandu"] {
        for span in &spans {
            let calendar = of(*span, zone);
            let mut now = moment("2012-01-02T12:00:00Z");
            while now < moment("2029-03-01T00:00:00Z") {
                let windows = calendar.windows(now);
                let [_, start, end, after] = windows.edges();
                assert!(windows.are_around(now) && end < after, "{calendar:?} at {now:?}");
                let [before, again, ..] = calendar.windows(end).edges();
                assert_eq!([before, again], [start, end], "{calendar:?} at {now:?}");
                assert_eq!(calendar.windows(end.minus_micros(1)), windows);
                now = end.plus_micros(end.as_micros() % 3_600_000_000);
            }
        }
    }
}

#[test]
fn calendars_are_known_by_one_name_each() {
    let berlin = of(Span::Month(15), "Europe/Berlin");
    assert_eq!((berlin.name(), berlin.unit()), ("month:Europe/Berlin:15", Unit::Month));
    assert_eq!(of(Span::Month(15), "europe/berlin"), berlin);
    assert_ne!(of(Span::Month(16), "Europe/Berlin"), berlin);
    assert_eq!(of(Span::Week(Weekday::Sunday), "UTC").name(), "week:UTC:7");
    for zone in ["", "Europe", "Berlin", "+01:00", "../zone"] {
        assert_eq!(Calendar::new(Span::Day, zone), None, "{zone}");
    }
}

#[test]
fn time_beyond_every_date_is_no_fault() {
    let months = of(Span::Month(2), "UTC");
    let known = months.windows(moment("2026-11-27T12:00:00Z"));
    assert_eq!(months.windows(Timestamp::from_micros(u64::MAX)), known);
    let [first, second, ..] = months.windows(Timestamp::EPOCH).edges();
    assert_eq!((first, second), (Timestamp::EPOCH, Timestamp::EPOCH), "before 1970");
}
