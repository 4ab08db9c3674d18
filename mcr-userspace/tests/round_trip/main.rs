//! A rule file that is written from a model and read again gives the same model, whatever the
//! model is.

mod models;
mod writer;

use mcr::config::parse;
use proptest::prelude::*;

proptest! {
    #[test]
    fn what_is_written_is_read(file in models::rule_file()) {
        let text = writer::yaml(&file);
        let mut read = match parse(&text) {
            Ok(parsed) => parsed.rules,
            Err(errors) => return Err(TestCaseError::fail(format!("{text}\n{errors:?}"))),
        };
        for relay in &mut read.relays {
            prop_assert!(relay.place.take().is_some());
        }
        prop_assert_eq!(read, file, "{}", text);
    }
}
