use super::*;

fn compile(pattern: &str) -> (Arc<Pattern>, Option<String>) {
    Patterns::default().compile(pattern)
}

fn check(rows: &[(&str, &str, bool)]) {
    for (pattern, text, wanted) in rows {
        let (compiled, why) = compile(pattern);
        assert!(why.is_none(), "{pattern}: {why:?}");
        assert_eq!(
            compiled.is_match(text, &Effort::default()),
            *wanted,
            "{pattern} on {text:?}"
        );
    }
}

#[test]
fn characters_and_anchors_mean_what_java_means() {
    check(&[
        ("b", "abc", false),
        ("a|ab", "ab", true),
        ("", "", true),
        (".", "é", true),
        (".", "😀", true),
        (".", "\n", false),
        (".", "\r", false),
        (".", "\u{85}", false),
        (".", "\u{2028}", false),
        (".", "\u{2029}", false),
        ("(?s).", "\u{2028}", true),
        ("(?d).", "\r", true),
        ("^a$", "a\n", false),
        ("a$\n", "a\n", true),
        ("(^a$|^b$)", "b", true),
        ("a\\Z\\R", "a\r\n", true),
        ("(?m)^a$\\n^b$", "a\nb", true),
        ("\\d+", "٣", false),
        ("\\w", "é", false),
        ("\\s", "\u{a0}", false),
        ("\\h", "\u{a0}", true),
        ("(?U)\\w", "é", true),
        ("(?i)straße", "STRAßE", true),
        ("(?i)k", "\u{212a}", false),
        ("(?iu)k", "\u{212a}", true),
        ("(?i)é", "É", false),
        ("(?iu)é", "É", true),
        ("(?i)[a-c]+", "aBC", true),
        ("(?i:a)b", "AB", false),
        ("a(?i)b|c", "C", true),
    ]);
}

#[test]
fn classes_and_groups_mean_what_java_means() {
    check(&[
        ("\\p{L}+", "éß", true),
        ("\\pL\\PL", "a1", true),
        ("\\p{IsAlphabetic}\\p{IsLatin}\\p{Lu}", "aéÉ", true),
        ("\\p{Punct}+", "!~[", true),
        ("\\Qa.b*\\E+", "a.b**", true),
        ("\\Q[", "[", true),
        ("[\\Q^-]\\E]+", "^-]", true),
        ("[]a]+", "]a", true),
        ("[^]]", "a", true),
        ("[a-]+", "a-", true),
        ("[a^]+", "^a", true),
        ("[a-z&&[def]]", "e", true),
        ("[a-z&&[^def]]", "e", false),
        ("[a-z&&[^def]]", "g", true),
        ("[^a-z&&[def]]", "g", true),
        ("[a-d[m-p]]+", "bn", true),
        ("[a-z&&d-f&&e]", "e", true),
        ("[\\w&&[^\\d]]+", "a1", false),
        ("[&&a]", "a", true),
        ("[a&b]+", "&", true),
        ("a{2}{3}", "aa", true),
        ("a{2}{3}", "aaaaaa", false),
        ("a++b", "aaab", true),
        ("a*+a", "aaa", false),
        ("a{1,2}+a", "aa", false),
        ("a{1,2}+a", "aaa", true),
        ("(?>a|ab)c", "abc", false),
        ("(?!foo).*", "food", false),
        ("(?!foo).*", "fod", true),
        ("(?=.*\\d)\\w+", "ab1", true),
        (".*(?<=\\d)", "ab1", true),
        ("(a+)-\\1", "aa-aa", true),
        ("(?<x>a+)-\\k<x>", "aa-a", false),
        ("(a)\\2", "aa", false),
        ("\\x41\\u0042\\x{43}\\0104\\t", "ABCD\t", true),
        ("\\ud83d\\ude00", "😀", true),
        ("(?x) a b # c\n c", "abc", true),
        ("\\$\\{\\}", "${}", true),
        ("a}", "a}", true),
        ("^*a", "a", true),
        ("(?=b)*a(?!b){2}+(?:)*+", "a", true),
        ("(?=b)+a", "a", false),
        ("\\b{1,2}a\\b*", "a", true),
    ]);
}

#[test]
fn what_java_refuses_is_refused() {
    for pattern in [
        "(",
        ")",
        "[",
        "[a",
        "a{",
        "{",
        "a{,3}",
        "a{3,2}",
        "a{b}",
        "*",
        "+a",
        "a**",
        "?",
        "(?i)*",
        "\\",
        "\\y",
        "\\E",
        "(?P<a>b)",
        "(?<1>a)",
        "(?<a>b)(?<a>c)",
        "\\k<a>",
        "[z-a]",
        "[a-\\d]",
        "[]",
        "[^]",
        "\\p{Nope}",
        "\\p{L",
        "\\x{110000}",
        "\\u12",
        "\\xg",
        "\\08",
        "[\\b]",
        "(?z)a",
        "a{99999999999}",
        "[a&&",
        "[&&]",
    ] {
        let (compiled, why) = compile(pattern);
        assert!(why.is_some(), "{pattern}");
        assert!(
            !compiled.is_match(pattern, &Effort::default()) && !compiled.is_match("", &Effort::default())
        );
    }
}

#[test]
fn hostile_patterns_are_given_up() {
    let text = format!("{}!", "a".repeat(60));
    for pattern in [
        "(a|a)*\\1b",
        "(?=(a+)+$)b",
        "(a*)*+\\1c|(?:a+)+(?=b)",
        "(?:(?=a)a+)+b",
    ] {
        let (compiled, why) = compile(pattern);
        assert!(why.is_none(), "{pattern}: {why:?}");
        let effort = Effort::default();
        for _ in 0..200 {
            assert!(!compiled.is_match(&text, &effort), "{pattern}");
        }
    }
    let (compiled, _) = compile("(?:(?=a)a+)+b");
    let effort = Effort::default();
    assert!(!compiled.is_match(&text, &effort));
    assert_eq!(effort.given_up(), 1);
}

#[test]
fn hostile_sizes_are_refused() {
    for pattern in [
        "((a{1000}){1000}){1000}".to_owned(),
        "(?:(?=a)(?:a{1000}){1000}){1000}".to_owned(),
        "(".repeat(10_000),
        format!("{}a{}", "(".repeat(5_000), ")".repeat(5_000)),
        format!("{}a{}", "[".repeat(5_000), "]".repeat(5_000)),
        "a".repeat(PATTERN_BYTES_MAX + 1),
        "\\p{L}{30000}".to_owned(),
    ] {
        assert!(compile(&pattern).1.is_some(), "{:.40}", pattern);
    }
}

#[test]
fn large_repetitions_work_on_short_texts() {
    let (compiled, why) = compile("[a-z]{1,2000}");
    assert_eq!(why, None);
    let effort = Effort::default();
    assert!(
        compiled.is_match(&"a".repeat(2_000), &effort) && !compiled.is_match(&"a".repeat(2_001), &effort)
    );
    assert_eq!(effort.given_up(), 0);
}

#[test]
fn common_patterns_run_in_linear_time() {
    for pattern in [
        "^/checkout/.*$",
        "^(free|pro)$",
        "(^a$|^b$)",
        "^.+@.+\\..+$",
        "^(?:has-)?.*value$",
        "\\Aa\\Z",
    ] {
        assert!(matches!(*compile(pattern).0, Pattern::Linear { .. }), "{pattern}");
    }
}

proptest::proptest! {
    #[test]
    fn no_pattern_makes_it_panic(pattern in "[\\[\\](){}|*+?^$.\\\\&\\-a-cQEpPLdDwWsSbBkux0-9,:<>=!i#\n]{0,24}", text in "[abc\n1]{0,8}") {
        compile(&pattern).0.is_match(&text, &Effort::default());
    }
}
