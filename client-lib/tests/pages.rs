//! The programs on the pages are the examples, which are compiled and run elsewhere.

/// The blocks of code of this language on a page.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).map(|rest| rest.split_once("```").expect("it ends").0).collect()
}

/// An example without the comment at its head.
fn body(example: &str) -> &str {
    example.split_once("\n\n").expect("a comment, then the program").1
}

#[test]
fn pages_show_the_examples() {
    let rust = blocks(include_str!("../doc/rust.md"), "rust,no_run");
    assert_eq!(rust[0], body(include_str!("../examples/echo.rs")));
    let awaited = blocks(include_str!("../doc/async.md"), "rust,ignore");
    let examples = [include_str!("../examples/axum.rs"), include_str!("../examples/hyper.rs")];
    assert_eq!(awaited, examples.map(body));
    let c = blocks(include_str!("../doc/c.md"), "c");
    assert_eq!(c, [include_str!("../c/examples/hello.c")]);
}
