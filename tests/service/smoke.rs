use super::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_start() {
    let _ = servers::shared_postgres();
    let _ = servers::shared_redis();
    let url = servers::empty_database().await;
    let mut c = servers::connect(&url).await;
    servers::execute(&mut c, "SELECT 1".into()).await;
    servers::drop_database(&url).await;
    let own = servers::own_postgres();
    let r = servers::own_redis();
    r.flush_all().unwrap();
    drop(own);
}
