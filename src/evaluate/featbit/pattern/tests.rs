use super::*;

/// Whether a pattern matches, or why it cannot say.
fn matches(pattern: &str, text: &str) -> Result<bool, String> {
    let pattern = Patterns::default().of(pattern);
    pattern
        .is_match(text, &Effort::default())
        .map_err(|undecided| undecided.to_string())
}

fn check(rows: &[(&str, &str, bool)]) {
    for (pattern, text, wanted) in rows {
        assert_eq!(matches(pattern, text), Ok(*wanted), "{pattern} on {text:?}");
    }
}

#[test]
fn characters_and_anchors_mean_what_dotnet_means() {
    check(&[
        ("b", "abc", true),
        ("", "", true),
        (".", "\r", true),
        (".", "\u{85}", true),
        (".", "\n", false),
        ("(?s).", "\n", true),
        ("a$", "a\n", true),
        ("a$", "a\n\n", false),
        ("a\\Z", "a\n", true),
        ("a\\z", "a\n", false),
        ("a$\\n", "a\n", true),
        ("a$b", "ab", false),
        ("(a$|b)+$", "ba\n", true),
        ("^$", "\n", true),
        ("(?m)^b$", "a\nb\nc", true),
        ("(?m)a$", "a\r\nb", false),
        ("(?m)^$", "a\n", true),
        ("\\Aa|\\Gb", "b", true),
        ("\\d", "٣", true),
        ("\\D", "٣", false),
        ("\\w", "\u{301}", true),
        ("\\w", "\u{903}", false),
        ("\\w", "Ⅷ", false),
        ("\\w", "\u{200d}", false),
        ("\\s", "\u{a0}", true),
        ("\\s", "\u{180e}", false),
        ("\\bfoo\\b", "a foo b", true),
        ("\\bfoo\\b", "foo\u{200d}", false),
        ("foo\\b", "foo\u{903}", true),
        ("foo\\B", "foo\u{903}", false),
        ("foo\\b", "fooⅧ", true),
        ("foo\\b", "fooé", false),
        ("\\Bo", "foo", true),
        ("(?=\\bfoo)f", "foo", true),
    ]);
}

#[test]
fn case_folds_as_in_the_invariant_culture() {
    check(&[
        ("(?i)straße", "STRAẞE", true),
        ("(?i)k", "\u{212a}", true),
        ("(?i)s", "ſ", false),
        ("(?i)i", "İ", false),
        ("(?i)I", "ı", false),
        ("(?i)é", "É", true),
        ("(?i)σ", "Σ", true),
        ("(?i)σ", "ς", false),
        ("(?i)[à-ý]", "É", true),
        ("(?i)[^a-c]", "B", false),
        ("(?i)\\p{Lu}", "a", true),
        ("\\p{Lu}", "a", false),
        ("(?i:a)b", "AB", false),
        ("a(?i)b|c", "C", true),
        ("(?:a(?i)b)c", "aBC", false),
        ("(?i-i)a", "A", false),
        ("(?-i+i)a", "A", true),
        ("(?i)(a)\\1", "aA", true),
        ("(a)(?i:\\1)", "aA", true),
    ]);
}

#[test]
fn classes_mean_what_dotnet_means() {
    check(&[
        ("[]a]+$", "]a", true),
        ("[^]a]", "]", false),
        ("[a-]", "-", true),
        ("[-a]", "-", true),
        ("[a\\-z]", "m", false),
        ("[+--]", ",", true),
        ("[a-z-[aeiou]]", "e", false),
        ("[a-z-[aeiou]]", "f", true),
        ("[^a-[b]]", "b", false),
        ("[^a-[b]]", "c", true),
        ("[\\w-[\\d-[5]]]", "5", true),
        ("[\\w-[\\d-[5]]]", "6", false),
        ("[a-[b]]", "a", true),
        ("[[a]", "[", true),
        ("[a&&b]", "&", true),
        ("[\\d\\s]", "x", false),
        ("[^\\W\\d]", "5", false),
        ("[\\p{L}-[\\p{Lu}]]", "A", false),
        ("[\\P{L}]", "5", true),
        ("[\\b]", "\u{8}", true),
        ("[.]", "a", false),
        ("\\p{IsGreek}", "α", true),
        ("\\P{IsGreek}", "α", false),
        ("\\p{IsLatin-1Supplement}", "é", true),
        ("[^\\s\\S]", "a", false),
        ("\\p{Co}", "\u{e000}", true),
    ]);
}

#[test]
fn texts_are_utf16() {
    check(&[
        ("^.$", "😀", false),
        ("^..$", "😀", true),
        ("^😀$", "😀", true),
        ("^😀+$", "😀😀", false),
        ("[😀]", "😁", true),
        ("\\ud83d", "😀", true),
        ("\\ud83d\\ude00", "😀", true),
        ("^[\\ud800-\\udbff][\\udc00-\\udfff]$", "😀", true),
        ("^[\\u0000-\\uffff]{2}$", "😀", true),
        ("\\p{Cs}", "😀", true),
        ("\\p{Co}", "😀", false),
        ("\\p{C}", "😀", true),
        ("\\p{IsHighSurrogates}", "😀", true),
        ("\\p{So}", "😀", false),
        ("\\w", "𝒜", false),
        ("[^a]", "😀", true),
        ("(?i)𐐀", "𐐨", false),
    ]);
}

#[test]
fn escapes_and_quantifiers_mean_what_dotnet_means() {
    check(&[
        ("\\x41\\u0042\\103\\t\\e\\cA\\ca", "ABC\t\u{1b}\u{1}\u{1}", true),
        ("^\\0$", "\0", true),
        ("^\\01$", "\u{1}", true),
        ("^\\777$", "ÿ", true),
        ("^\\10$", "\u{8}", true),
        ("(a)\\1", "aa", true),
        ("(?<n>a)\\1", "aa", true),
        ("(?<n>a)(b)\\1$", "abb", true),
        ("(?<n>a)(b)\\2$", "aba", true),
        ("(?<7>a)\\7", "aa", true),
        ("(?'n'a)\\k'n'\\<n>", "aaa", true),
        ("(?<n>a)\\k<1>", "aa", true),
        ("(a)?\\1b", "b", false),
        ("\\1?(a)b", "ab", true),
        ("x{", "x{", true),
        ("{", "{", true),
        ("a{,2}", "a{,2}", true),
        ("a{1,x}", "a{1,x}", true),
        ("^a{2,}$", "aaa", true),
        ("^a{2}?$", "aa", true),
        ("^a{0}b$", "b", true),
        ("a]}", "a]}", true),
        ("^*a", "a", true),
        ("(?=b)*a(?!b){2}", "a", true),
        ("(?=b)+a", "a", false),
        ("(|a)+b", "aab", true),
        ("a(?#comment)*b", "aaab", true),
        ("(?x) a b # c\n c", "abc", true),
        ("(?x)a {2}", "aa", true),
        ("(?n)(a)(?<x>b)\\1", "abb", true),
        ("(?>a+)b", "aab", true),
        ("(?>a+)ab", "aab", false),
        ("(?<!a)b", "ab", false),
        ("(?<=a+)b", "aab", true),
        ("(a)?(?(1)b|c)$", "ab", true),
        ("^(a)?(?(1)b|c)$", "ac", false),
        ("^(?<x>a)?(?(x)b|c)$", "c", true),
        ("^(?(?=a)ab|cd)$", "cd", true),
        ("^(?(a)ab|cd)$", "ab", true),
    ]);
}

#[test]
fn what_dotnet_refuses_is_refused() {
    for pattern in [
        "(",
        ")",
        "[",
        "[]",
        "[^]",
        "[a",
        "[a-",
        "[z-a]",
        "[a-\\d]",
        "[a-z-[a]b]",
        "*a",
        "a|*",
        "(*)",
        "{2}",
        "a**",
        "a++",
        "a+*",
        "a??*",
        "a{2}{3}",
        "a{3,2}",
        "a{99999999999}",
        "(?i)*",
        "(?)",
        "(?",
        "(?z)",
        "(?P<n>a)",
        "(?<>a)",
        "(?<0>a)",
        "(?<a.b>c)",
        "(?<n",
        "(?#a",
        "\\",
        "\\1",
        "(a)\\2",
        "\\k<n>",
        "\\kn",
        "\\k",
        "\\8",
        "\\h",
        "\\K",
        "\\R",
        "\\_",
        "\\é",
        "\\x6",
        "\\u123",
        "\\c",
        "\\c1",
        "\\pL",
        "\\p{Foo}",
        "\\p{L",
        "\\p{Alphabetic}",
        "\\p",
        "(?(1)a|b)",
        "(a)(?(1)a|b|c)",
        "(?(?#x)a|b)",
        "(?(?<n>a)b|c)",
    ] {
        let refused = matches(pattern, "a");
        assert!(refused.is_err(), "{pattern}");
        assert!(Patterns::default().of(pattern).problem().is_some(), "{pattern}");
    }
}

#[test]
fn hostile_patterns_come_to_an_end() {
    let text = format!("{}!", "a".repeat(60));
    assert_eq!(matches("^(a+)+$", &text), Ok(false));
    for pattern in ["^(a|a)*\\1b", "^(?=(a+)+$)b", "^(?:(?=a)a+)+b", "^(?>(a+)+$)"] {
        let lazy = Patterns::default().of(pattern);
        let effort = Effort::default();
        for _ in 0..200 {
            let matched = lazy.is_match(&text, &effort);
            assert!(
                matches!(matched, Ok(false) | Err(Undecided::GivenUp)),
                "{pattern}: {matched:?}"
            );
        }
    }
    for pattern in [
        "((a{1000}){1000}){1000}".to_owned(),
        "(".repeat(10_000),
        format!("{}a{}", "(".repeat(5_000), ")".repeat(5_000)),
        format!("{}b{}", "[a-".repeat(5_000), "]".repeat(5_000)),
        "a".repeat(PATTERN_BYTES_MAX + 1),
    ] {
        assert!(matches(&pattern, "a").is_err(), "{pattern:.40}");
    }
}

#[test]
fn common_patterns_run_in_linear_time() {
    for pattern in [
        "^/checkout/.*$",
        "(^a$|^b$)",
        "^.+@.+\\..+$",
        "\\bbeta\\b",
        "(?i)^internal-",
        "(?<n>a+)",
    ] {
        let lazy = Patterns::default().of(pattern);
        let compiled = lazy.compiled().as_ref().unwrap();
        assert!(matches!(compiled.usual, Pattern::Linear { .. }), "{pattern}");
    }
}

proptest::proptest! {
    #[test]
    fn no_pattern_makes_it_panic(
        pattern in "[\\[\\](){}|*+?^$.\\\\\\-a-cpPkdDwWsSbBzZxunim0-9,:<>=!'#😀\n]{0,24}",
        text in "[abc\n1😀]{0,8}",
    ) {
        let _ = matches(&pattern, &text);
    }

    /// Where both dialects mean the same, the crate is an independent reader.
    #[test]
    fn plain_patterns_mean_what_the_crate_means(pattern in "([ab.|]|\\(a|\\)|[ab]\\*|\\[\\^?[ab]+\\]){0,8}", text in "[abc]{0,6}") {
        if let Ok(regex) = regex::Regex::new(&pattern) {
            proptest::prop_assert_eq!(matches(&pattern, &text), Ok(regex.is_match(&text)), "{}", pattern);
        }
    }
}
