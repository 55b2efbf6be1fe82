//! What is kept of a listener for whoever comes after it.

use super::*;

/// Group 1 dies with listeners 0 and 1, group 2 keeps them, group 3 takes one of them over.
#[test]
fn listeners_are_kept_for_a_successor() {
    let clients = Clients { accept_grace: Duration::from_secs(600), ..Clients::default() };
    run_with(clients, |scene| {
        let (client, ..) = Client::greet(&scene.path);
        let (_, first) = client.listen("0.0.0.0:0");
        let (_, kept) = client.listen("0.0.0.0:0");
        // Bound only: nobody can have connected to it.
        client.bind("0.0.0.0:0");
        drop(client);
        scene.until_told(&["0:group 2", "1:group 2", "0:RemoveGroup", "1:RemoveGroup"]);
        let (successor, ..) = Client::greet(&scene.path);
        successor.listen(&kept.to_string());
        scene.until_told(&["0:goes on with 1 of group 2", "1:goes on with 1 of group 2"]);
        // Listening again changes the backlog and takes nothing over.
        let again = Request::Listen { listener: 0, backlog: 9 };
        assert_eq!(successor.ask(&again).0, Reply::Done);
        assert!(!scene.log.lock().unwrap().iter().any(|line| line.contains(" with 0 of")));
        // What is another address, though it covers the kept one's, ends it.
        let wide = format!("[::]:{}", first.port());
        successor.listen(&wide);
        scene.until_told(&["0:Unlisten", "1:Unlisten"]);
    });
}

/// Of two listeners that share an address and are closed one after the other, only the last has
/// something to keep: what the first had went to the other. Whoever comes goes on with the last.
#[test]
fn a_listener_with_a_partner_leaves_nothing_to_keep() {
    let clients = Clients { accept_grace: Duration::from_secs(600), ..Clients::default() };
    run_with(clients, |scene| {
        let (client, ..) = Client::greet(&scene.path);
        let (holder, address) = client.bind("0.0.0.0:0");
        assert_eq!(client.ask(&Request::CloseListener { listener: holder }).0, Reply::Done);
        let options = BindOptions { reuse_port: true, ..BindOptions::default() };
        for expected in [0, 1] {
            let bound = client.ask(&Request::Bind { address, options }).0;
            assert_eq!(bound, Reply::Bound { listener: expected, address });
            let listen = Request::Listen { listener: expected, backlog: 5 };
            assert_eq!(client.ask(&listen).0, Reply::Done);
        }
        for listener in [0, 1] {
            assert_eq!(client.ask(&Request::CloseListener { listener }).0, Reply::Done);
        }
        client.listen(&address.to_string());
        scene.until_told(&["0:goes on with 1 of group 2", "1:goes on with 1 of group 2"]);
        assert!(!scene.log.lock().unwrap().iter().any(|line| line.contains("group 3")));
    });
}

/// Without `SO_REUSEADDR` nothing is taken over, and what was kept is not in the way for long.
#[test]
fn what_is_kept_gives_way_to_who_takes_nothing_over() {
    let clients = Clients { accept_grace: Duration::from_secs(600), ..Clients::default() };
    run_with(clients, |scene| {
        let (client, ..) = Client::greet(&scene.path);
        let (listener, address) = client.listen("0.0.0.0:0");
        assert_eq!(client.ask(&Request::CloseListener { listener }).0, Reply::Done);
        scene.until_told(&["0:group 2", "1:group 2"]);
        let options = BindOptions { reuse_address: false, ..BindOptions::default() };
        let (reply, _) = client.ask(&Request::Bind { address, options });
        assert_eq!(reply, Reply::Bound { listener, address });
        assert_eq!(client.ask(&Request::Listen { listener, backlog: 5 }).0, Reply::Done);
        assert!(!scene.log.lock().unwrap().iter().any(|line| line.contains("goes on with")));
    });
}

/// A listener closed by its client is kept too; when its time is over everything of it goes.
#[test]
fn nothing_is_kept_for_longer_than_accept_grace() {
    let clients = Clients { accept_grace: Duration::from_millis(50), ..Clients::default() };
    run_with(clients, |scene| {
        let (client, ..) = Client::greet(&scene.path);
        let (listener, _) = client.listen("0.0.0.0:0");
        assert_eq!(client.ask(&Request::CloseListener { listener }).0, Reply::Done);
        scene.until_told(&["0:group 2", "0:Unlisten", "1:Unlisten"]);
        scene.until_told(&["0:RemoveGroup", "1:RemoveGroup", "0:ReportIdle", "1:ReportIdle"]);
    });
}

/// A user who leaves listeners behind as fast as it can leaves room for what others leave. Group 1 is
/// the client's, 2 to 129 keep.
#[test]
fn one_user_has_half_of_what_can_be_kept() {
    let clients = Clients { accept_grace: Duration::from_secs(600), ..Clients::default() };
    run_with(clients, |scene| {
        let (client, ..) = Client::greet(&scene.path);
        for _ in 0..130 {
            let (listener, _) = client.listen("0.0.0.0:0");
            assert_eq!(client.ask(&Request::CloseListener { listener }).0, Reply::Done);
        }
        let told = |line: &str| scene.log.lock().unwrap().iter().any(|other| other == line);
        assert!(told("0:group 129") && !told("0:group 130"));
    });
}

#[test]
fn nothing_is_kept_of_a_hostile_client() {
    let (ready, listens) = std::sync::mpsc::channel();
    let script = |_control, workers: Vec<Rc<FakeWorker>>| async move {
        while listens.try_recv().is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        workers[1].say(FromWorker::Evicted { group: GroupId(1), worker: 1, reason: "test" });
    };
    with_control(Clients::default(), usize::MAX, script, move |scene| {
        let (client, ..) = Client::greet(&scene.path);
        client.listen("0.0.0.0:0");
        ready.send(()).unwrap();
        assert!(client.is_closed());
        scene.until_told(&["0:RemoveGroup", "1:RemoveGroup", "0:ReportIdle", "1:ReportIdle"]);
        assert!(!scene.log.lock().unwrap().iter().any(|line| line == "0:group 2"));
    });
}
